"""Settings of a training run, of a variant's objective and of the processes that train."""

from dataclasses import field
from typing import Annotated, Literal

from aft.alignment.terms import TERMS, Pairwise, Pointwise, Ranking, Term, constants_of
from aft.bounds import LARGEST, Bounds, Count, NotNegative, Positive, ShareBelowOne, counted
from aft.checked import checked
from aft.code import Added, How
from aft.errors import SettingsError
from aft.models.adapters import LoraSettings

_Passes = Literal["auto", "naive", "shared", "two_pass"]
_Number = Annotated[float, Bounds(-LARGEST, LARGEST)]
_Processes = Annotated[int, counted(most=1024)]
_Machines = Annotated[int, counted(most=65536)]
_OF_SAMPLES = {"reference_scores", "behaviour_scores"}  # what no reference (solution) has


@checked
class TrainingSettings:
    """How any model of the project is trained: the base model's pretraining, VFT and every variant.

    A run that was begun under other settings of `How` goes on under these, and ends with the same weights up to the
    rounding of sums: `aft.code.deciding` leaves them out of the key that a model is kept under. Under dropout, LoRA's
    or the model's own, a run draws other masks under another `token_budget` or `scoring`: the same distribution, not
    the same weights.
    """

    epochs: Annotated[float, Bounds(0.001, 1e6)]  # passes over the training questions
    learning_rate: Positive  # the peak, reached after the warm-up and then lowered linearly to 0
    batch_size: Count  # training examples (a question with all its responses) per optimiser step
    token_budget: How[Count] = 8192  # tokens per forward pass with its graph; a batch is split under it
    scoring: How[_Passes] = "auto"  # how responses are scored, see aft.scoring.paths
    warmup: ShareBelowOne = 0.03  # share of the steps over which the learning rate rises
    # Two numbers of 4 bytes kept per weight; two of one byte each (bitsandbytes); few; none.
    optimizer: Literal["adamw", "adamw_8bit", "adafactor", "sgd"] = "adamw"
    weight_decay: NotNegative = 0.0  # share of a weight that a step at learning rate 1 would take away
    max_grad_norm: Positive = 1.0  # the gradient is scaled down to this norm
    max_tokens: Count = 512  # prompt + response; longer ones are left out, and counted
    max_steps: Count | None = None  # stop after so many optimiser steps; None = all epochs
    select: Added[Literal["last", "validation"]] = "last"  # whose weights become the model, see aft.training.selection
    patience: Added[Count | None] = None  # stop after so many epochs without a better one; None = never
    checkpoint_every: How[Count] = 200  # optimiser steps between two checkpoints
    monitor_every: How[Count | None] = 20  # score 64 validation references every so many steps; None = never
    precision: Literal["float32", "bfloat16"] = "float32"  # bfloat16 = autocast
    weights: Added[Literal["float32", "bfloat16", "nf4"]] = "float32"  # how they are kept, see aft.training.weights
    gradient_checkpointing: How[bool] = False  # trade time for memory
    lora: LoraSettings | None = None  # train a low-rank adapter, merged in the end; None = train all weights

    def __post_init__(self) -> None:
        if self.patience is not None and self.select == "last":
            raise SettingsError("patience counts epochs that validation judges: set select to validation, too.")
        if self.weights == "nf4" and self.lora is None:
            raise SettingsError("weights: nf4 cannot be trained themselves, only an adapter on them: set lora, too.")
        if self.weights != "float32" and self.precision == "float32":
            raise SettingsError(f"weights: {self.weights} compute in bfloat16: set precision to bfloat16, too.")


@checked
class Objective:
    """One variant: loss = vft_weight x vft + weight x alignment(term, constraint). The defaults are plain VFT."""

    term: Literal["none", Ranking, Pairwise, Pointwise] = "none"  # the alignment term; none = maximum likelihood alone
    constraint: Literal["none", "detached", "detached_lowest", "boundary"] = "none"  # what protects the negatives
    feedback: Literal["binary", "ranking"] = "binary"  # what ranks the samples: right above wrong, or their ratings
    start: Literal["base", "vft"] = "base"  # the model that training starts from
    weight: NotNegative = 1.0  # of the alignment term beside the VFT term (Eq. 4)
    beta: _Number = 0.15  # margin of the boundary below the worst positive (Eq. 8)
    dynamic_temperature: bool = True  # of pro: the gaps between ratings (Eq. 21); else 1, as under binary feedback
    dpo_beta: Positive = 0.1  # DPO's inverse temperature; its reference model is the VFT model (Eq. 16)
    score_reduction: Literal["mean", "sum"] = "mean"  # of token log-probabilities, in what the alignment term compares
    constants: dict[str, _Number] = field(default_factory=dict)  # of a term that is not the paper's; else as published
    # What the VFT term learns: the reference, the best sample, or the mean over the reference and every distinct right
    # sample, each of which weighs the same. RFT takes the same responses, but as training examples of their own: it
    # draws them apart, takes more steps for it, and a token weighs the same in it.
    imitate: Literal["reference", "best", "positives"] = "reference"
    vft_weight: NotNegative = 1.0  # of the VFT term; 0 without an alignment term = nothing is learnt
    vft_reduction: Literal["mean", "sum", "pro"] = "mean"  # mean over the tokens of a batch, sum over
    # those of each response, or PRO's: this sum times (n - 1)^2 for a question with n ranked samples, else times 0
    learn_positives: bool = False  # RFT: every distinct right sample (under ranking, the top-rated) is a reference
    distinct_equations: bool = False  # RFT: of the right samples with the same equations learn one only
    reference_as_positive: bool = False  # count the reference as one more best-ranked response of its question

    def __post_init__(self) -> None:
        constants_of(self.term, self.constants)
        contradictions = [
            (self.constraint != "none" and self.term == "none", "A constraint needs an alignment term: set term, too."),
            (
                self.reference_as_positive and (bool(_OF_SAMPLES & {*self.kind.needs}) or self.feedback == "ranking"),
                "The reference has neither rating nor score under another model: leave out reference_as_positive, or "
                f"use binary feedback and a term other than {self.term}.",
            ),
            (
                self.score_reduction == "sum" and self.kind.family != "ranking",
                f"The term {self.term} says itself what it takes as a sum: leave out score_reduction.",
            ),
            (
                self.learn_positives and self.term != "none",
                "learn_positives (RFT) has no groups to rank: set term to none, or leave it out.",
            ),
            (
                self.distinct_equations and not self.learn_positives,
                "distinct_equations says which samples RFT learns: set learn_positives, too.",
            ),
            (
                self.imitate != "reference" and self.term == "none",
                f"imitate: {self.imitate} needs the groups of an alignment term; RFT is learn_positives.",
            ),
            (
                self.vft_reduction == "pro" and self.term == "none",
                "vft_reduction: pro weighs by the groups of an alignment term: set term, or another reduction.",
            ),
            (
                self.vft_weight == 0 and (self.learn_positives if self.term == "none" else self.weight == 0),
                "With vft_weight 0 and no alignment term of a weight above 0 there is nothing to learn: raise one. "
                "(vft_weight 0 alone stands for the model that training would start from.)",
            ),
        ]
        for contradicts, message in contradictions:
            if contradicts:
                raise SettingsError(message)

    @property
    def learns(self) -> bool:
        """Whether there is anything to learn; if not, it stands for the model that training would start from."""
        return self.vft_weight > 0 or self.term != "none"

    @property
    def kind(self) -> Term:
        """What the term is a loss of and what it reads; no term reads nothing."""
        return TERMS.get(self.term, Term("ranking"))

    @property
    def label(self) -> str:
        """A short name for progress bars and logs."""
        if self.term == "none":
            return "rft" if self.learn_positives else "vft"
        return self.term if self.constraint == "none" else f"{self.term}+{self.constraint}"


Sharding = Literal["none", "full"]


@checked
class Launch:
    """Where a model is trained; what it learns is the same, up to the rounding of sums and dropout's masks."""

    processes: _Processes = 1  # on each machine: one per GPU; 1 = in the process that runs the pipeline
    machines: _Machines = 1  # the log says what to run on each other machine
    rendezvous: str | None = None  # host:port of the first machine, at which the others find it
    sharding: Sharding = "none"  # full = every process keeps a part of all weights (FSDP2)

    def __post_init__(self) -> None:
        if self.machines > 1 and self.rendezvous is None:
            raise SettingsError("launch.machines needs launch.rendezvous, the host:port of the first machine.")

    @property
    def alone(self) -> bool:
        """Whether the process that runs the pipeline trains, and no other."""
        return self.processes * self.machines == 1 and self.sharding == "none"
