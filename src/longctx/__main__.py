"""`python -m longctx`, and so `torchrun -m longctx`: the command line."""

from longctx.cli import main

if __name__ == "__main__":
    main()
