"""What `make check-gpu` runs: sections, each of a few commands with a time limit of its own."""

from dataclasses import dataclass, field
from typing import Callable, Dict, List, Optional

# A test of machines without a GPU.
NOT_OF_A_DEVICE = ("a_cuda_device_is_had",)
# Compares the fused kernels with torch's operators. A process of its own: in the others torch has begun without CUDA before it comes.
FUSED_KERNELS_TEST = "kernels::tests::every_program_computes_on_a_gpu_what_torch_does"
# A run that was resumed is compared with one that was not, byte by byte. CUDA adds up in no fixed order in some backward passes, so these are
# counted and shown, and fail nothing.
BYTE_BY_BYTE = (
    "stopped_and_taken_up_again",
    "was_stopped_equals_one_never_stopped",
    "so_does_a_run_with_a_discriminator",
    "so_do_runs_in_half_precision",
    "dropout_differs_between_seeds",
)


@dataclass
class Step:
    """A command, or a function of the run; `limit` in seconds."""

    command: List[str] = field(default_factory=list)
    limit: float = 60
    environment: Dict[str, str] = field(default_factory=dict)
    # Laid over each line that the command prints; of tests, `what` says which these are.
    marks: Dict[str, str] = field(default_factory=dict)
    # "lines": JSON objects. "tests": what cargo's test binaries print; "repeats": the same, and a failure fails nothing.
    output: str = "lines"
    function: Optional[Callable] = None
    # The steps after it cannot do without it.
    needed: bool = False


@dataclass
class Section:
    name: str
    about: str
    steps: List[Step]
    # Why it is left out here.
    skipped: Optional[str] = None


@dataclass
class Sizes:
    """How large everything is."""

    tokenizer: str
    seconds: float
    peaks: List[str]
    agreement: List[str]
    # Precisions, batches.
    encode: List[List[str]]
    decode: List[List[str]]
    # Tokenizer, precision, batch.
    memory: List[str]
    fused: List[str]
    profile: List[str]
    # Generator, precision, batches, kinds.
    sample: List[List[str]]
    sample_profile: List[str]
    # Section of check_gpu, network, precision, batch, steps.
    train: List[List[str]]
    scores: List[str]
    pictures: int
    # Precision, batch.
    tokenize: List[List[str]]


TINY = Sizes(
    tokenizer="tiny",
    seconds=0.05,
    peaks=["256", "0.02"],
    agreement=["tiny", "2"],
    encode=[["fp32", "1,2"], ["bf16", "2"]],
    decode=[["fp32", "2"]],
    memory=["tiny", "fp32", "4"],
    fused=["tiny", "bf16", "2"],
    profile=["tiny", "fp32", "2"],
    sample=[["tiny", "fp32", "2", "paper,unguided"]],
    sample_profile=["tiny", "fp32", "2"],
    train=[["train-generator", "tiny", "fp32", "2", "2"], ["train-tokenizer", "tiny", "fp32", "2", "2"]],
    scores=["64", "32"],
    pictures=12,
    tokenize=[["fp32", "4"]],
)

PROCESSOR = Sizes(
    tokenizer="restok-l-128",
    seconds=8,
    peaks=["2048", "1"],
    agreement=["restok-s-128", "2"],
    encode=[["fp32", "1,4"], ["bf16", "4"]],
    decode=[["fp32", "1,4"]],
    memory=["restok-l-128", "fp32", "4"],
    # A processor has no fused kernels; that the section runs is seen in tiny sizes.
    fused=[],
    profile=["restok-l-128", "fp32", "1"],
    sample=[["gpt-b", "fp32", "4", "paper,unguided"]],
    sample_profile=["gpt-b", "fp32", "4"],
    train=[["train-generator", "gpt-b", "fp32", "4", "2"]],
    scores=["5000", "2048"],
    pictures=16,
    tokenize=[["fp32", "4"]],
)

GPU = Sizes(
    tokenizer="restok-l-128",
    seconds=2,
    peaks=["8192", "0.4"],
    agreement=["restok-s-128", "8"],
    encode=[["bf16", "16,32,64,128,256"], ["tf32,fp16", "64,128"], ["fp32", "64"]],
    decode=[["bf16,fp32", "32,64"]],
    memory=["restok-l-128", "bf16", "64"],
    fused=["restok-l-128", "bf16", "64"],
    profile=["restok-l-128", "bf16", "64"],
    sample=[["gpt-l", "bf16", "50,128,256", "paper,unguided"], ["gpt-b", "bf16", "50,128,256", "paper,unguided"]],
    sample_profile=["gpt-l", "bf16", "128"],
    train=[
        ["train-generator", "gpt-l", "bf16", "128", "10"],
        ["train-tokenizer", "restok-s-128", "fp16", "32", "5"],
        ["train-tokenizer", "restok-l-128", "fp16", "16", "4"],
    ],
    scores=["10000", "2048"],
    pictures=8000,
    tokenize=[["bf16", "64"], ["bf16", "128"]],
)

# Sections of published.py with their limits, batches and seconds.
PUBLISHED = [
    ("encode-tf32", 40, "64", "2"),
    ("encode-bf16", 30, "64", "2"),
    ("decode-tf32", 30, "64", "2"),
    ("sample-bf16", 60, "128", "2"),
    ("encode-compile", 130, "64", "2"),
    ("sample-compile", 120, "128", "2"),
]


def sizes(size, cuda):
    return TINY if size == "tiny" else GPU if cuda else PROCESSOR


def sections(run):
    """All sections in their order: what later ones are held to comes first, and what takes long and may be missed comes last."""
    chosen, cuda = run.sizes, run.cuda
    # Nothing that runs on a processor is as quick as on a GPU.
    slower = 1 if cuda else 4

    def check(*arguments, limit, **more):
        command = [str(run.programs["check_gpu"]), run.device, *map(str, arguments)]
        return Step(command, limit * slower, **more)

    seconds = str(chosen.seconds)
    return [
        Section("parity", "both fixtures against the published figures, in every precision", [
            check("parity", run.fixtures, limit=60),
        ]),
        Section(
            "suite",
            "the integration tests of the models and the fused kernels on the device, the unit tests on the processor",
            suite(run),
        ),
        Section("peaks", "what the device can do: products, a convolution, copies, launches", [
            check("peaks", *chosen.peaks, limit=40),
        ]),
        Section("agreement", "a tokenizer of random weights against the processor", [
            check("agreement", *chosen.agreement, limit=60),
        ]),
        Section("encode", "images a second", [
            check("encode", chosen.tokenizer, precisions, batches, seconds, limit=25 + 10 * batches.count(","))
            for precisions, batches in chosen.encode
        ]),
        Section(
            "attention",
            "encode with flash attention before cuDNN's",
            [check(
                "encode", chosen.tokenizer, chosen.encode[0][0], chosen.encode[0][1].split(",")[-1], seconds, limit=25,
                environment={"TORCH_CUDNN_SDPA_DEPRIORITIZED": "1"}, marks={"variant": "flash before cuDNN"},
            )],
            skipped=None if cuda else "cuDNN is on CUDA devices only",
        ),
        Section(
            "fused",
            "encode without and with the fused norms, by turns",
            [check("fused", *chosen.fused, seconds, limit=40)] if chosen.fused else [],
            skipped=None if chosen.fused else "fused norms are for CUDA devices only",
        ),
        Section("memory", "what a batch takes beside what was foretold", [
            check("memory", *chosen.memory, limit=30),
        ]),
        Section("encode-profile", "kernels of encoding by their time", [
            check("encode-profile", *chosen.profile, run.output / "encode-trace.json", limit=40),
        ]),
        Section("decode", "tokens to images", [
            check("decode", chosen.tokenizer, precisions, batches, seconds, limit=45)
            for precisions, batches in chosen.decode
        ]),
        Section("sample", "images a second that a generator draws", [
            check("sample", *arguments, seconds, limit=45) for arguments in chosen.sample
        ]),
        Section("sample-profile", "kernels of sampling by their time", [
            check("sample-profile", *chosen.sample_profile, run.output / "sample-trace.json", limit=25),
        ]),
        Section("train", "steps of training, random data, without frozen networks", [
            check(*arguments, limit=55) for arguments in chosen.train
        ]),
        Section("scores", "statistics, Fréchet distance, precision and recall", [
            check("scores", *chosen.scores, limit=40),
        ]),
        Section(
            "tokenize",
            "`restok tokenize` from JPEG files to tables",
            [Step(function=run.tokenize, limit=120 * slower)],
            skipped=run.why_not_tokenize(),
        ),
        Section(
            "published",
            "the published code's rates on the same device",
            [
                *run.steps_before_published(),
                *(Step(
                    [run.published_python, "-W", "ignore", str(run.here / "published.py"), str(run.published),
                     "cuda" if cuda else "cpu", section, *((batch, length) if cuda else ("1", "0.1"))],
                    limit, run.published_environment(),
                ) for section, limit, batch, length in (PUBLISHED if cuda else PUBLISHED[:1])),
            ],
            skipped=None if run.published else "no checkout of it was named (--published)",
        ),
    ]


def suite(run):
    fixtures = {"RESTOK_TEST_FIXTURES": str(run.fixtures)}
    on_device = {**fixtures, "RESTOK_TEST_DEVICE": run.device}
    integration, unit = run.programs.get("models-integration"), run.programs.get("models-unit")
    steps = []

    def tests(program, *arguments, what, limit, environment, output="tests"):
        steps.append(Step([str(program), *arguments], limit, environment, {"what": what}, output))

    if not run.cuda:
        # `make test` runs them all on a processor; here it is enough that the binary finds what it needs.
        if integration:
            tests(
                integration, "parity", "--test-threads=1", what="integration tests of parity", limit=120, environment=on_device,
            )
        return steps
    if unit:
        tests(
            unit, "--exact", FUSED_KERNELS_TEST, "--show-output", what="fused kernels against torch, on the GPU", limit=60,
            environment=on_device,
        )
    if integration:
        skip = [word for name in (*NOT_OF_A_DEVICE, *BYTE_BY_BYTE) for word in ("--skip", name)]
        tests(integration, "--test-threads=1", *skip, what="integration tests", limit=90, environment=on_device)
        tests(
            integration, "--test-threads=1", *BYTE_BY_BYTE, what="tests that compare runs byte by byte (for information)", limit=40,
            environment=on_device, output="repeats",
        )
    if unit:
        tests(unit, what="unit tests, on the processor", limit=60, environment=fixtures)
    return steps
