"""What one check may use. See :mod:`gptbook.grading.runner` for how it is enforced."""

from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Limits of one isolated process, which runs all cases of one check.

    The processor time is the limit that a busy machine does not move; the wall clock is there for
    code that waits without working, so it is wide.

    Attributes:
        cpu_seconds: processor time, whole seconds, 1 or more.
        wall_seconds: time on the clock.
        memory_bytes: address space on top of what Python and the preloaded libraries take.
        output_bytes: size of what is printed, of what is returned, and of any file written.
    """

    cpu_seconds: int = 4
    wall_seconds: float = 12.0
    memory_bytes: int = 512 * MIB
    output_bytes: int = 2 * MIB

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value <= 0:
                raise ValueError(f"{name} must be positive, got {value!r}")
