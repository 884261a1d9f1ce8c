"""Generated code of the dropserve wire contract; the .proto files beside it are the source."""
