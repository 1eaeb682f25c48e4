"""``python -m rmab_opt.cli``."""

from rmab_opt.cli import main

if __name__ == "__main__":
    main()
