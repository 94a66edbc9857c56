"""The command ``gmlib``, which needs what runs the study and not the layer alone."""

import sys


def main() -> int:
    """Run `gmlib.study.cli`, or say what it lacks."""
    try:
        from gmlib.study.cli import main
    except ModuleNotFoundError as error:
        print(f"gmlib: the command needs {error.name}: pip install 'gmlib[study]'", file=sys.stderr)
        return 2
    return main()


if __name__ == "__main__":
    sys.exit(main())
