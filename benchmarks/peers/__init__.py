"""The applications and settings of the contenders."""
