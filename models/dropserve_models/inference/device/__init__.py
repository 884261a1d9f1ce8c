"""The Monte Carlo engine on an accelerator: what `inference.engine` answers, computed by CUDA.

`engine` has the life of a request; `tiling` cuts it into blocks of one shape each; a block's masks are
drawn (`philox`, `masks`), its passes run (`runner`) and summed up (`sums`) on the device, recorded as a CUDA
graph when a shape comes again (`graphs`). Of a request only features go there and only sums come back.

All of it but the recording itself is plain torch, and runs on the CPU, too: so it is tested.
"""
