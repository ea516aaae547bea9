"""The trainer: ``train(recipe)`` makes a run, or goes on with one, to the sample."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from chammi75.errors import ChammiError
from chammi75.schemas.model_card import Result
from chammi75.training.backbones import Backbone, build_backbone
from chammi75.training.checkpoints import random_states, read_last, restore_random_states, write_checkpoint
from chammi75.training.crops import Crops
from chammi75.training.data import channel_lookup, channel_table, make_loader, make_stream, steps_per_epoch
from chammi75.training.devices import Ranks, device_errors, make_fabric
from chammi75.training.health import Health, check_finite, check_weights, collapse_advice
from chammi75.training.logs import Entry, RunLog, Stopwatch
from chammi75.training.methods import build_method
from chammi75.training.model_card import model_config
from chammi75.training.models import save_model
from chammi75.training.optimizer import build_optimizer, clip_gradients, set_schedules
from chammi75.training.probe import ProbeResult, check_probe, probe
from chammi75.training.process import Stopping, held, process_group, say_nothing
from chammi75.training.progress import Progress
from chammi75.training.run_folder import check_samples_per_step, run_hash
from chammi75.training.schedules import learning_rates, weight_decays
from chammi75.training.views import Views, make_views
from chammi75.version import __version__

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from chammi75.schemas.training import TrainingRecipe
    from chammi75.training.methods import Method
    from chammi75.training.run_folder import RunFolder

_RANKS_APART = 1_000_003
"""Between the seeds of two ranks: stochastic depth draws anew on each."""


def train(recipe: TrainingRecipe, *, on_line: Callable[[str], None] = print) -> Path:
    """Train a model; where the recipe's folder has a run of the same recipe, go on with it.

    A resumed run gives the losses of an unbroken one: everything goes on from the last checkpoint, also the generators
    and the place in the data. SIGTERM and SIGINT (Ctrl-C) finish the step and write a checkpoint. A process that is
    killed loses the steps since its last one.

    With several devices, each process calls this with the same recipe, and a folder that all of them see; torchrun or
    Slurm start the processes, or on one machine the first one does, by its own command line.

    Parameters
    ----------
    recipe : TrainingRecipe
    on_line : callable
        Gets what the run says of itself, line by line, in the first process.

    Returns
    -------
    pathlib.Path
        The folder of the run: ``recipe.yaml``, ``checkpoints/``, ``log.csv`` and ``model/``.

    Raises
    ------
    RecipeError
        If the recipe does not fit the data, the devices or the run in its folder.
    StoreError
        If another process trains in the folder, or it holds something else.
    ChammiError
        If the training fails: losses that are no numbers, collapsed features, a device out of memory, a lost rank.

    Examples
    --------
    >>> from chammi75.training import load_recipe, train
    >>> folder = train(load_recipe("laptop", ["max_steps=100", "out=runs/first"]))  # doctest: +SKIP
    """
    with device_errors(recipe), ExitStack() as stack:
        fabric = make_fabric(recipe.devices, recipe.optimizer)
        stack.enter_context(process_group(fabric))
        ranks = Ranks()
        stack.callback(ranks.close)
        say = on_line if ranks.is_first else say_nothing
        stopping = stack.enter_context(Stopping(say))
        folder = stack.enter_context(held(recipe, ranks))
        Trainer(recipe, fabric, ranks, folder, say, stopping).run()
    return folder.path


class Trainer:
    """One process of a run.

    Parameters
    ----------
    recipe : TrainingRecipe
    fabric : lightning_fabric.Fabric
        Launched.
    ranks : Ranks
    folder : RunFolder
        Held by the first rank.
    say : callable
    stopping : Stopping

    Attributes
    ----------
    step : int
        Steps of the optimiser that are done.
    """

    def __init__(
        self,
        recipe: TrainingRecipe,
        fabric: Fabric,
        ranks: Ranks,
        folder: RunFolder,
        say: Callable[[str], None],
        stopping: Stopping,
    ) -> None:
        self.recipe, self.fabric, self.ranks, self.folder = recipe, fabric, ranks, folder
        self.say, self.stopping, self.device = say, stopping, fabric.device
        if recipe.devices.threads is not None:
            torch.set_num_threads(recipe.devices.threads)
        self.channels = channel_table(recipe)
        self.stream = make_stream(recipe, ranks.rank, ranks.count)
        check_probe(recipe)
        self._lookup = channel_lookup(self.channels, self.device)
        self.per_epoch = steps_per_epoch(self.stream, recipe)
        self.total_steps = recipe.epochs * self.per_epoch
        self.last_step = min(self.total_steps, recipe.max_steps or self.total_steps)
        self.samples_per_step = recipe.batch_size * recipe.accumulate * ranks.count
        self._rates = learning_rates(recipe.optimizer, self.samples_per_step, self.per_epoch, self.total_steps)
        self._decays = weight_decays(recipe.optimizer, self.total_steps)
        self.method, self.module, self.optimizer = self._networks()
        self.is_sharded = recipe.devices.parallel == "fsdp"
        self.step = 0
        self.stopwatch = Stopwatch()
        self.health = Health(self.method.backbone.width, recipe.dino.out_dim if recipe.method == "dino" else None)
        self._is_finite = torch.ones((), dtype=torch.bool, device=self.device)
        self._results: list[ProbeResult] = []

    def run(self) -> None:
        """Train, from the last checkpoint to the last step."""
        self._resume()
        log = None
        if self.ranks.is_first:
            log = RunLog(self.folder, self.recipe, self.step, self.last_step, self.say)
        try:
            stopped = self._epochs(log)
        finally:
            if log is not None:
                log.close()
        if stopped:
            self.say(
                f"stopped by {signal.Signals(stopped).name} after step {self.step}, and a checkpoint is written: start"
                " the same command again to go on"
            )
            return
        self._write_model()
        self.say(f"trained for {self.step} steps: {self.folder.path}")

    def _epochs(self, log: RunLog | None) -> int:
        """Go to the last step; the signal that came between, or 0."""
        loader = make_loader(self.stream, self.recipe.data.workers, self.device)
        state: dict[str, Any] | None = None
        while self.step < self.last_step:
            epoch, done = divmod(self.step, self.per_epoch)
            self.stream.set_epoch(epoch)
            batches = iter(loader)
            for _ in range(done, min(self.per_epoch, done + self.last_step - self.step)):
                metrics, state = self._step(batches)
                self.step += 1
                self.stopwatch.add_step(self.samples_per_step)
                self._tell(log, metrics)
                began = time.perf_counter()
                self._end_of_epoch(log)
                stopped = self.ranks.greatest(self.stopping.signal)
                if stopped or self.step == self.last_step or self.step % self.recipe.checkpoints.every_steps == 0:
                    self._save(state)
                self.stopwatch.leave_out(time.perf_counter() - began)
                if stopped and self.step < self.last_step:
                    return stopped
        return 0

    def _step(self, batches: Iterator[Mapping[str, Any]]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """One step of the optimiser: what was measured, and where the data stands behind it."""
        accumulate = self.recipe.accumulate
        progress = Progress(self.step, self.per_epoch, self.total_steps)
        set_schedules(self.optimizer, float(self._rates[self.step]), float(self._decays[self.step]))
        sums: dict[str, torch.Tensor] = {}
        for number in range(accumulate):
            began = time.perf_counter()
            batch = next(batches)
            self.stopwatch.add_wait(time.perf_counter() - began)
            views = self._views(batch)
            waits = self.ranks.count > 1 and number < accumulate - 1
            with self.fabric.no_backward_sync(self.module, enabled=waits):
                measured = self.module(views, progress)
                self.fabric.backward(measured["loss"] / accumulate)
            measured["constant_planes"] = views.constant.float()
            for name, value in measured.items():
                value = value.detach()
                sums[name] = sums[name] + value if name in sums else value
        norm = self._clip()
        self.method.after_backward(progress)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.method.after_step(progress)
        metrics = {name: value / accumulate for name, value in sums.items()}
        self._is_finite &= torch.isfinite(metrics["loss"])
        metrics["gradient_norm"] = norm
        return metrics, self.stream.state_dict(after=batch)

    def _views(self, batch: Mapping[str, Any]) -> Views:
        crops = Crops.from_batch(batch).to(self.device, non_blocking=True)
        if self.recipe.strategy == "mca":  # from numbers of the vocabulary to those of the model's table
            crops = replace(crops, channel_ids=self._lookup[crops.channel_ids])
        return make_views(crops, self.recipe.views, self.recipe.seed)

    def _clip(self) -> torch.Tensor:
        """Shorten the gradients; their norm before."""
        settings = self.recipe.optimizer
        if self.is_sharded and settings.clip is not None:
            norm: torch.Tensor = self.fabric.clip_gradients(
                self.module, self.optimizer, max_norm=settings.clip, error_if_nonfinite=False
            )
            return norm
        self.fabric.strategy.precision.unscale_gradients(self.optimizer.optimizer)
        return clip_gradients(self.method.trained.parameters(), settings.clip, settings.clip_by)

    def _tell(self, log: RunLog | None, metrics: Mapping[str, torch.Tensor]) -> None:
        """Every so many steps: look at the run's health, and log."""
        if self.step % self.recipe.log.every_steps and self.step != self.last_step:
            return
        values = torch.stack([value.detach().to(self.device, torch.float64) for value in metrics.values()])
        means = dict(zip(metrics, self.ranks.mean(values.cpu()).tolist(), strict=True))
        loss, norm = means.pop("loss"), means.pop("gradient_norm")
        rate, wait, step_s = self.stopwatch.lap()
        if log is not None:
            log.entry(
                Entry(
                    step=self.step,
                    epoch=(self.step - 1) // self.per_epoch,
                    loss=loss,
                    metrics=means,
                    learning_rate=float(self._rates[self.step - 1]),
                    weight_decay=float(self._decays[self.step - 1]),
                    gradient_norm=norm,
                    samples_per_s=rate,
                    data_wait=wait,
                    left_s=(self.last_step - self.step) * step_s,
                )
            )
        self._check_finite()
        illness = self.health.look(self.step, means)
        if illness is None:
            return
        words = f"step {self.step}: {illness}; {collapse_advice(self.recipe.method)}"
        if self.recipe.log.stop_on_collapse:
            raise ChammiError(words)
        self.say(words)

    def _check_finite(self) -> None:
        # one rank's loss that is no number is every rank's reason to stop
        check_finite(self.step, not self.ranks.greatest(int(not self._is_finite.item())))

    def _end_of_epoch(self, log: RunLog | None) -> None:
        """What is due when an epoch is over: a probe, a model."""
        epochs, rest = divmod(self.step, self.per_epoch)
        if rest:
            return
        settings = self.recipe.probe
        if settings.every_epochs is not None and epochs % settings.every_epochs == 0:
            result = probe(self._whole_backbone(), self.recipe, self.ranks, self.channels, self.device)
            self._results = [result]
            if log is not None:
                log.result(self.step, {"epoch": epochs - 1, "probe_accuracy": result.accuracy}, result.line(self.step))
        every = self.recipe.checkpoints.models_every_epochs
        if every is not None and epochs % every == 0 and self.step < self.last_step:
            self._write_model()

    def _save(self, stream_state: dict[str, Any]) -> None:
        """Write a checkpoint, unless the weights are no numbers."""
        self._check_finite()
        method, optimizer = self._states()
        content = {
            "library": __version__,
            "run": run_hash(self.recipe),
            "samples_per_step": self.samples_per_step,
            "channels": list(self.channels),
            "stream": stream_state,
            "random": {kind: self.ranks.gather(state) for kind, state in random_states(self.device).items()},
            "precision": self.fabric.strategy.precision.state_dict(),
            "method": method,
            "optimizer": optimizer,
        }
        if self.ranks.is_first:
            check_weights(self.step, method.values())
            write_checkpoint(self.folder.checkpoints, self.step, content, self.recipe.checkpoints.keep)

    def _resume(self) -> None:
        """Go on from the last checkpoint, if there is one."""
        content = read_last(self.folder.checkpoints, self.say) if self.ranks.is_first else None
        step = self.ranks.greatest(content["step"] if content else 0)
        if not self.ranks.is_first and step:
            content = read_last(self.folder.checkpoints, self.say)
        if (content["step"] if content else 0) != step:
            raise ChammiError(
                f"rank {self.ranks.rank} does not see the checkpoint of step {step} in {self.folder.checkpoints}: all"
                " ranks need one folder, on a disk that they share"
            )
        if content is None:
            torch.manual_seed(self.recipe.seed + _RANKS_APART * self.ranks.rank)
            self.say(f"a new run of {self.last_step} steps, {self.per_epoch} in an epoch: {self.folder.path}")
            return
        self._check_same_run(content)
        self._load_states(content)
        self.stream.load_state_dict(content["stream"])
        self.fabric.strategy.precision.load_state_dict(content["precision"])
        self.step = step
        states = content["random"]
        if len(states["cpu"]) == self.ranks.count:
            restore_random_states({kind: rows[self.ranks.rank].clone() for kind, rows in states.items()}, self.device)
        else:
            torch.manual_seed(self.recipe.seed + _RANKS_APART * self.ranks.rank + step)
            self.say(
                f"this run was on {len(states['cpu'])} ranks and goes on on {self.ranks.count}: the same samples, and"
                " other draws of stochastic depth"
            )
        if step < self.last_step:
            self.say(f"going on from step {step} of {self.last_step}: {self.folder.path}")
        else:
            self.say(f"nothing is left to train: {self.folder.path} is at step {step}, and asked for {self.last_step}")

    def _check_same_run(self, content: Mapping[str, Any]) -> None:
        recipe = self.recipe
        check_samples_per_step(content["samples_per_step"], recipe.batch_size, recipe.accumulate, self.ranks.count)
        if content["run"] != run_hash(recipe):
            raise ChammiError(
                f"the checkpoints in {self.folder.checkpoints} are those of another recipe than"
                f" {self.folder.recipe.name} beside them: put the recipe back, or begin in another folder (out=…)"
            )
        if tuple(content["channels"]) != self.channels:
            raise ChammiError(
                f"the run in {self.folder.path} had the channels {', '.join(content['channels'])}, and the data has"
                f" {', '.join(self.channels)}: go on with the data that it began with, or begin in another"
                " folder (out=…)"
            )

    def _networks(self) -> tuple[Method, Any, Any]:
        """The method, the same wrapped for devices and ranks, and its optimiser."""
        torch.manual_seed(self.recipe.seed)
        method = self._new_method()
        if self.recipe.devices.compile:
            method.compile_networks()
        optimizer = build_optimizer(method.trained, self.recipe.optimizer)
        module, wrapped = self.fabric.setup(method, optimizer)
        return method, module, wrapped

    def _new_method(self) -> Method:
        recipe = self.recipe

        def new_backbone() -> Backbone:
            return build_backbone(
                recipe.backbone, recipe.strategy, channels=self.channels, masked=recipe.channels.masked
            )

        return build_method(recipe, new_backbone, self.per_epoch, self.total_steps)

    def _states(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """States of method and optimiser, whole; with FSDP on the first rank only."""
        if not self.is_sharded:
            return self.method.state_dict(), self.optimizer.optimizer.state_dict()
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict

        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        method, optimizer = get_state_dict(_unwrapped(self.module), self.optimizer.optimizer, options=options)
        return method, optimizer

    def _load_states(self, content: Mapping[str, Any]) -> None:
        if not self.is_sharded:
            self.method.load_state_dict(content["method"])
            self.optimizer.optimizer.load_state_dict(content["optimizer"])
            return
        from torch.distributed.checkpoint.state_dict import StateDictOptions, set_state_dict

        set_state_dict(
            _unwrapped(self.module),
            self.optimizer.optimizer,
            model_state_dict=content["method"],
            optim_state_dict=content["optimizer"],
            options=StateDictOptions(full_state_dict=True),
        )

    def _whole_method(self) -> Method:
        """The method, none of its weights on other ranks."""
        if not self.is_sharded:
            return self.method
        state, _ = self._states()
        with torch.random.fork_rng(devices=[self.device]):
            whole = self._new_method()
        if self.ranks.is_first:
            whole.load_state_dict(state)
        whole.to(self.device)
        if self.ranks.count > 1:
            for tensor in whole.state_dict().values():
                torch.distributed.broadcast(tensor, 0)
        return whole

    def _whole_backbone(self) -> Backbone:
        return self._whole_method().backbone

    def _write_model(self) -> None:
        """Write the model for inference."""
        whole = self._whole_method()
        if self.ranks.is_first:
            write_model(self.folder.model, whole, self.recipe, self.step, self._results)


def write_model(folder: Path, method: Method, recipe: TrainingRecipe, steps: int, results: list[ProbeResult]) -> None:
    """Write the model for inference, and what it was trained on; one that is there is replaced."""
    config = model_config(
        recipe,
        method.backbone,
        steps=steps,
        results=[
            Result(task=f"kNN of {found.label} ({found.images} images)", metric="accuracy", value=found.accuracy)
            for found in results
        ],
    )
    student = method.backbones().get("student")
    save_model(folder, method.backbone, config, student=student, overwrite=True)


def _unwrapped(module: Any) -> Any:
    """What Fabric has wrapped, still wrapped for its strategy."""
    return module._forward_module
