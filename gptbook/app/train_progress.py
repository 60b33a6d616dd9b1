"""What ``gptbook train`` shows while it trains: a bar, measurements, and a plot in the folder."""

import importlib.util
from pathlib import Path
from types import TracebackType
from typing import NoReturn

from tqdm import tqdm

from gptbook.device import limits
from gptbook.train_config import TrainConfig
from gptbook.trainer import Trainer


class Progress:
    """A bar with loss, tokens/s, MFU and time left; a line for each measurement."""

    def __init__(
        self, config: TrainConfig, folder: Path, floor: float | None, *, quiet: bool
    ) -> None:
        self.config, self.folder, self.floor, self.quiet = config, folder, floor, quiet
        self._bar: tqdm[NoReturn] | None = None
        self._last = (0, 0.0)  # tokens and seconds of the last metrics
        self._peak = 0.0

    def start(self, trainer: Trainer) -> None:
        """Show the bar, where the run stands."""
        self._last = (trainer.tokens, trainer.seconds)
        if trainer.world.rank == 0 and not self.quiet:
            self._peak = limits(trainer.device, trainer.dtype).flops * trainer.world.size
            self._bar = tqdm(total=self.config.steps, initial=trainer.step, unit=" steps")

    def observe(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """Take metrics that were logged."""
        if "bits_per_byte" in metrics:
            self._say_held_out(trainer, metrics)
        elif self._bar is not None:
            self._move(trainer, metrics["loss"], self._bar)

    def _move(self, trainer: Trainer, loss: float, bar: "tqdm[NoReturn]") -> None:
        tokens, seconds = trainer.tokens, trainer.seconds
        speed = (tokens - self._last[0]) / max(seconds - self._last[1], 1e-9)
        self._last = (tokens, seconds)
        per_token = trainer.flops_per_step() / self.config.batch_size / self.config.context_length
        mfu = f"{speed * per_token / self._peak:.0%}"
        bar.set_postfix_str(f"loss {loss:.3f}, {speed:,.0f} tokens/s, {mfu} MFU", refresh=False)
        bar.update(trainer.step - bar.n)

    def _say_held_out(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        floor = f" (floor {self.floor:.3f})" if self.floor is not None else ""
        text = (
            f"step {trainer.step:,}: held out {metrics['held_out_loss']:.4f} nats per token, "
            f"{metrics['bits_per_byte']:.4f} bits per byte{floor}, "
            f"{trainer.seconds:.0f} s of training"
        )
        tqdm.write(text)
        if importlib.util.find_spec("matplotlib") is not None:
            from gptbook.app.run_plot import plot_runs

            plot_runs([self.folder], self.folder / "loss.svg")

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()
