"""Package `inference`: the Open Inference Protocol v2, with Triton's extensions.

Its stubs keep their descriptors in a pool of their own. In protobuf's default pool, which every library of
a process shares, the first of tritonclient, kserve and this package to be imported would keep the others
from being imported, because all of them define the messages of the standard (kserve#3099, MLServer#1730).
"""

from google.protobuf.descriptor_pool import DescriptorPool

POOL = DescriptorPool()
