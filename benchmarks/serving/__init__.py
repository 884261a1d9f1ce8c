"""What a request costs, beside what gRPC in Python costs anyway."""
