"""``python -m probvae``."""

from probvae.cli import main

if __name__ == "__main__":
    main()
