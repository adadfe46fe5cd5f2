"""The server beside the library alone and beside llama.cpp's, over a real port."""

from bench.suites.serve.command import main

if __name__ == "__main__":
    raise SystemExit(main())
