"""What a run is: settings, families of networks, arms, and the list of studies."""

from gmlib.study.plan.config import RunConfig, run_configs

__all__ = ["RunConfig", "run_configs"]
