"""`python -m farcontext`, and so `torchrun -m farcontext`: the command line."""

from farcontext.app.cli import main

if __name__ == "__main__":
    main()
