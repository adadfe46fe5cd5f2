"""How fast is ternary here, is it lossless, and what does the paper say?"""

from bench.suites.run.command import main

if __name__ == "__main__":
    raise SystemExit(main())
