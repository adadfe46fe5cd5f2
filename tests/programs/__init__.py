"""What tests run in processes of their own: `python -m tests.programs.NAME`.

Each says in its first lines what it takes and what it prints. Those that prepare their process
for something (another folder, no home, a limit) import ternops only after that.
"""
