"""Print the oldest versions that pyproject.toml allows, as constraints for pip."""

import re
import tomllib
from pathlib import Path

#: What users install; what developers do is not promised of any age.
EXTRAS = ("bench", "llm", "serve")

if __name__ == "__main__":
    project = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["project"]
    wanted = [*project["dependencies"]]
    for extra in EXTRAS:
        wanted += project["optional-dependencies"][extra]
    for line in sorted({re.sub(r"^([\w.-]+)>=([\w.]+).*", r"\1==\2", each) for each in wanted}):
        print(line)
