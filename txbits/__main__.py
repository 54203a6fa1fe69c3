"""
``python -m txbits`` is the command ``txbits``.
"""

from txbits.client.cli import main

if __name__ == "__main__":
    main()
