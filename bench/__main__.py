"""Runs `hermod bench` as `python -m bench`."""

from bench.commands import bench

if __name__ == "__main__":
    bench(prog_name="python -m bench")
