"""ARM without ARM hardware: the kernels compiled for its cores here, and run under an emulator."""
