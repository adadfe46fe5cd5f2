"""Files that models come in: Hugging Face folders, GGUF, and the packed file of this package."""
