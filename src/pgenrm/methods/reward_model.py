"""A Bradley-Terry reward model fine-tuned with TRL, alone or told who the user is.

A language model with a linear head reads a conversation with one response and gives a number; it is
trained so that chosen responses get more than rejected ones. Alone it is the same for everybody.
With personas (FT RM + SynthesizeMe) a text about the user stands before the conversation.

Deliberately left out: lower weights for pairs that share a response, which TRL's trainer has no
place for.
"""

import hashlib
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from pgenrm.engines.control_tokens import control_tokens, token_breaker
from pgenrm.errors import InputError, MissingExtraError
from pgenrm.history import gather_users
from pgenrm.methods.protocol import bradley_terry, judgment_of
from pgenrm.methods.recipe import MethodRecipe, load_recipe
from pgenrm.types import Comparison, Context, Judgment, User

try:
    import torch
    from datasets import Dataset
    from peft import LoraConfig, PeftModel
    from torch.nn.utils.rnn import pad_sequence
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        EarlyStoppingCallback,
        PrinterCallback,
        TrainerState,
    )
    from trl import RewardConfig, RewardTrainer

    from pgenrm.engines.checkpoint import default_device
    from pgenrm.methods.kept import fingerprint
    from pgenrm.methods.training import labelled_choices, seeded
    from pgenrm.train.callbacks import GuardCallback
    from pgenrm.train.record import STATE_FILE, last_checkpoint
except ImportError as error:
    raise MissingExtraError("train", "fine-tuning a reward model") from error

VERSION: Final = 1
"""Of the prompt and the code."""
LEARNT_FROM: Final = "learnt_from.txt"
"""Beside a trained model: a digest of what it depends on, written when the model is whole."""
PERSONA: Final = "What is known about the person you are talking to:\n{persona}"


class RewardModelRecipe(MethodRecipe):
    """Settings of the reward model."""

    max_length: int
    """Tokens of a conversation with its response. Older turns give way, a response never does."""
    head_scale: float
    """Factor on the head's random start."""
    lora_rank: int | None = None
    """None trains all weights."""
    lora_alpha: int = 0
    lora_dropout: float = 0.0
    patience: int
    """Evaluations without a better validation loss after which training ends."""
    trl: dict[str, Any]
    """Goes to TRL's `RewardConfig` as it is."""


class RewardModel:
    """The reward model as a `Method`."""

    is_trained = True

    def __init__(
        self,
        model: str | Path,
        folder: str | Path,
        *,
        recipe: RewardModelRecipe | None = None,
        personas: Mapping[str, str] | None = None,
        seed: int = 0,
    ) -> None:
        """Set up the method; nothing is loaded yet.

        Args:
            model: directory of an instruction-tuned language model, or `owner/model@commit` on the
                hub. A branch, or no revision, takes what is there now, and the version does not
                tell; `pgenrm.bench.plan.pinned_model` finds the commit.
            folder: gets the checkpoints while training, and the trained model under `model`. `fit`
                takes that one where it was learnt from the same; processes that share a folder
                train one after the other.
            recipe: None takes the shipped one, with LoRA; `reward_model_full` trains all weights.
            personas: text about each user by id, of training users too. Looked up when needed, so
                that it may grow; a user without one, or never adapted to, is judged without.
            seed: of the head and of the order of the pairs.
        """
        self.recipe = recipe or load_recipe(RewardModelRecipe, "reward_model")
        self.name = "reward-model" if personas is None else "reward-model-personas"
        self.version = f"{VERSION}:{self.recipe.digest}:{weights_identity(model)}"
        self.model, self.revision = str(model), None
        if not Path(model).is_dir() and "@" in str(model):
            self.model, _, self.revision = str(model).partition("@")
        self.folder = Path(folder)
        self.personas = {} if personas is None else personas
        self.seed = seed
        self._n_history: dict[str, int] = {}
        self._network: Any = None

    def fit(self, train: Sequence[Comparison], validation: Sequence[Comparison]) -> None:
        """Fine-tune on all choices in the training comparisons, histories included.

        Pairs with a response that alone is too long are left out; `n_left_out_` counts them.

        Raises:
            InputError: the model cannot be loaded, TRL refuses the recipe, or there is nothing to
                learn from or to stop by.
            TrainingError: a gradient is not finite.
        """
        self._load()
        pairs = [
            (user, pair.context, (pair.chosen, pair.rejected))
            for user in gather_users(train)
            for pair in user.history
        ]
        checks = labelled_choices(validation)
        rows, checked = self._rows(pairs), self._rows(checks)
        self.n_left_out_ = len(pairs) + len(checks) - len(rows) - len(checked)
        if not rows or not checked:
            raise InputError(
                f"{self.name} needs labelled comparisons to learn from and others to stop by; "
                f"found {len(rows)} and {len(checked)} that fit {self.recipe.max_length} tokens"
            )
        depends_on = fingerprint(self.name, self.version, self.seed, *rows, *checked)
        self.folder.mkdir(parents=True, exist_ok=True)
        with _alone_in(self.folder):
            if not _is_from(self.folder / "model", depends_on):
                self._train(rows, checked, depends_on)
                (self.folder / "model" / LEARNT_FROM).write_text(depends_on, "utf-8")
            self._network = self._kept()  # also after training, lest a later run differ

    def _train(self, rows: Dataset, checked: Dataset, depends_on: str) -> None:
        checkpoints = self.folder / "checkpoints"
        shutil.rmtree(self.folder / "model", ignore_errors=True)
        start = self._to_go_on_from(checkpoints, depends_on)
        if start is None:
            shutil.rmtree(checkpoints, ignore_errors=True)
            checkpoints.mkdir()
            (checkpoints / LEARNT_FROM).write_text(depends_on, "utf-8")
        trainer = RewardTrainer(
            model=self._network,
            args=self._config(),
            train_dataset=rows,
            eval_dataset=checked,
            processing_class=self._tokenizer,
            peft_config=self._lora(),
            callbacks=[EarlyStoppingCallback(self.recipe.patience), GuardCallback(checkpoints)],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=None if start is None else str(start))
        trainer.save_model(str(self.folder / "model"))

    def _to_go_on_from(self, checkpoints: Path, depends_on: str) -> Path | None:
        """Return the checkpoint of a killed training; None where there is none of the same.

        One that was killed after its last step is done anew: the trainer would go one step further.
        """
        last = last_checkpoint(checkpoints)
        if last is None or not _is_from(checkpoints, depends_on):
            return None
        state = TrainerState.load_from_json(str(last / STATE_FILE))
        stopping: Any = state.stateful_callbacks["EarlyStoppingCallback"]
        is_over = stopping["attributes"]["early_stopping_patience_counter"] >= self.recipe.patience
        return None if is_over or state.global_step >= state.max_steps else last

    def _kept(self) -> Any:
        """Return the trained model as it is on disk, with the adapters if there are any."""
        path = self.folder / "model"
        network: Any
        if self.recipe.lora_rank is None:
            network = AutoModelForSequenceClassification.from_pretrained(
                path, num_labels=1, dtype=torch.float32
            )
        else:
            self._load()  # training has put adapters into the network
            network = PeftModel.from_pretrained(self._network, path)
        return network.to(default_device()).eval()

    def adapt(self, users: Sequence[User]) -> None:
        """Note that these users may be judged with their persona."""
        self._n_history |= {user.id: len(user.history) for user in users}

    def score(self, comparisons: Sequence[Comparison]) -> list[Judgment]:
        """Judge comparisons; one with a response that alone is too long is unscored."""
        encoded = [self._encode_all(comparison) for comparison in comparisons]
        rewards = iter(self._rewards([ids for some in encoded if some for ids in some]))
        scores = [[next(rewards) for _ in some] if some else None for some in encoded]
        return [
            judgment_of(
                comparison,
                given,
                method=self.name,
                seed=self.seed,
                confidence=bradley_terry(given) if given else None,
                n_history=self._n_history.get(comparison.user.id, 0) if self.personas else 0,
            )
            for comparison, given in zip(comparisons, scores, strict=True)
        ]

    # ------------------------------------------------------------ texts

    def _rows(self, pairs: Sequence[tuple[User, Context, tuple[str, str]]]) -> Dataset:
        columns: dict[str, list[list[int]]] = {"chosen_ids": [], "rejected_ids": []}
        for user, context, responses in pairs:
            persona = self.personas.get(user.id)
            encoded = [self._encode(persona, context, response) for response in responses]
            if None not in encoded:
                for column, ids in zip(columns.values(), encoded, strict=True):
                    column.append(ids or [])
        return Dataset.from_dict(columns)

    def _encode_all(self, comparison: Comparison) -> list[list[int]] | None:
        is_known = comparison.user.id in self._n_history
        persona = self.personas.get(comparison.user.id) if is_known else None
        encoded = [self._encode(persona, comparison.context, r) for r in comparison.responses]
        return None if None in encoded else [ids for ids in encoded if ids]

    def _encode(self, persona: str | None, context: Context, response: str) -> list[int] | None:
        return conversation_ids(
            self._tokenizer, self._clean, persona, context, response, self.recipe.max_length
        )

    # ------------------------------------------------------------ the model

    def _load(self) -> None:
        try:
            tokenizer = AutoTokenizer.from_pretrained(self.model, revision=self.revision)
            with seeded("reward model", self.seed):
                network = AutoModelForSequenceClassification.from_pretrained(
                    self.model, revision=self.revision, num_labels=1, dtype=torch.float32
                )
        except (OSError, ValueError) as error:
            raise InputError(f"cannot load {self.model} as a reward model: {error}") from error
        if tokenizer.chat_template is None:
            raise InputError(
                f"the tokenizer of {self.model} has no chat template; use an instruction-tuned "
                "model, or put the template beside it as chat_template.jinja"
            )
        told = [{"role": "system", "content": PERSONA}, {"role": "user", "content": "?"}]
        if self.name == "reward-model-personas" and PERSONA not in tokenizer.apply_chat_template(
            told, tokenize=False
        ):
            raise InputError(
                f"the chat template of {self.model} leaves out system messages, where personas "
                "stand; use another model, or change the template"
            )
        with torch.no_grad():
            network.score.weight *= self.recipe.head_scale
        if tokenizer.pad_token is None:  # the head reads the last token that is no padding
            tokenizer.pad_token = tokenizer.eos_token
        network.config.pad_token_id = tokenizer.pad_token_id
        self._tokenizer, self._network = tokenizer, network
        self._clean = token_breaker(control_tokens(tokenizer))

    def _config(self) -> RewardConfig:
        given: dict[str, Any] = {
            "output_dir": str(self.folder / "checkpoints"),
            "seed": self.seed,
            "max_length": None,  # is cut here
            "load_best_model_at_end": True,
            "restore_callback_states_from_checkpoint": True,  # or patience would begin anew
            "metric_for_best_model": "eval_loss",
            "logging_nan_inf_filter": False,
            "disable_tqdm": True,
            "report_to": [],
        }
        if default_device() == "cpu":
            given |= {"use_cpu": True, "bf16": False}
        try:
            return RewardConfig(**given, **self.recipe.trl)
        except (TypeError, ValueError) as error:
            raise InputError(f"TRL refuses the recipe's table trl: {error}") from error

    def _lora(self) -> LoraConfig | None:
        recipe = self.recipe
        if recipe.lora_rank is None:
            return None
        return LoraConfig(
            r=recipe.lora_rank,
            lora_alpha=recipe.lora_alpha,
            lora_dropout=recipe.lora_dropout,
            target_modules="all-linear",
            task_type="SEQ_CLS",
            modules_to_save=["score"],
        )

    def _rewards(self, sequences: Sequence[list[int]]) -> list[float]:
        """Return one reward per sequence; like lengths are read together."""
        order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
        rewards = [0.0] * len(sequences)
        size = self.recipe.trl["per_device_eval_batch_size"]
        for some in (order[i : i + size] for i in range(0, len(order), size)):
            rows = [torch.tensor(sequences[i]) for i in some]
            with torch.no_grad():
                logits = self._network(
                    input_ids=pad_sequence(
                        rows, batch_first=True, padding_value=self._tokenizer.pad_token_id
                    ).to(self._network.device),
                    attention_mask=pad_sequence(
                        [torch.ones_like(row) for row in rows], batch_first=True
                    ).to(self._network.device),
                ).logits
            for i, reward in zip(some, logits[:, 0].float().tolist(), strict=True):
                rewards[i] = reward
        return rewards


def _is_from(folder: Path, depends_on: str) -> bool:
    """Whether what lies in a folder was learnt from this."""
    path = folder / LEARNT_FROM
    return path.is_file() and path.read_text("utf-8") == depends_on


def weights_identity(model: str | Path) -> str:
    """Return what tells a language model from others: a digest of its files, or its hub id."""
    folder = Path(model)
    if not folder.is_dir():
        return str(model)
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "blake2b").digest()
        digest.update(path.name.encode() + b"\0" + content)
    return digest.hexdigest()


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Wait until no other process trains in a folder; without effect on Windows."""
    with (folder / "lock").open("w") as file:
        if sys.platform != "win32":
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def conversation_ids(
    tokenizer: Any,
    clean: Callable[[str], str],
    persona: str | None,
    context: Context,
    response: str,
    max_length: int,
) -> list[int] | None:
    """Return the tokens of a conversation with its response, cut to a length.

    The oldest turns go first, then the beginning of the query; persona and response stay whole.

    Args:
        tokenizer: with a chat template.
        clean: breaks what spells a control token.
        persona: of the user, put first as a system message.
        context: of the response.
        response: what is judged.
        max_length: tokens.

    Returns:
        The tokens, or None where they do not fit even without the query.
    """
    about = [("system", PERSONA.format(persona=clean(persona)))] if persona else []

    def ids_of(turns: Sequence[tuple[str, str]]) -> list[int]:
        messages = [
            {"role": role, "content": text}
            for role, text in (*about, *turns, ("assistant", clean(response)))
        ]
        encoded = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True)
        return list(encoded["input_ids"])

    for turns in _shortened(tokenizer, [(m.role, clean(m.content)) for m in context]):
        ids = ids_of(turns)
        if len(ids) <= max_length:
            return ids
    return None


def _shortened(tokenizer: Any, turns: list[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    """Yield ever shorter conversations, each of them beginning with the user."""
    for start, (role, _) in enumerate(turns):
        if role == "user":
            yield turns[start:]
    query = tokenizer(turns[-1][1], add_special_tokens=False)["input_ids"]
    for eighth in range(1, 9):
        yield [("user", tokenizer.decode(query[len(query) * eighth // 8 :]))]
