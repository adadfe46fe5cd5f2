"""Every result on ARM, bit for bit x86's: the library under an emulator."""
