"""Every result on ARM, bit for bit that of this machine: the library under an emulator."""
