"""The Open Inference Protocol V2 over HTTP: its messages and tensors, for a server and a client alike."""
