//! Images a second that a generator samples, random weights, and where the time goes. `cargo bench -p models --bench sample_batch`.

#![expect(clippy::print_stdout, reason = "the shares of time are no figure of the harness")]

use divan::counter::ItemsCount;
use models::{
    Device, DeviceChoice, Generator, GeneratorConfig, GeneratorData, GeneratorSize, LoadOptions, Precision, initialise,
    measuring::sampling_times,
};
use schemas::{Guidance, GuidanceSchedule, SampleBatch, Sampling};

const DATA: GeneratorData = GeneratorData { codebook_size: 8192, classes: 1000, tokens_per_image: 128 };
/// Without guidance, guided at every step, and as in the paper, whose first steps run a null half without reading its logits.
const KINDS: [&str; 3] = ["unguided", "guided", "paper"];

fn main() {
    fractions();
    divan::main();
}

fn device() -> Device {
    initialise(&[DeviceChoice::Auto], None).expect("a device")[0]
}

/// GPT-L in bfloat16 on a GPU; GPT-B in float32 on a processor, which would measure its patience otherwise.
fn generator() -> Generator {
    let device = device();
    let (size, precision) = match device {
        Device::Cpu => (GeneratorSize::GptB, Precision::Fp32),
        Device::Cuda(_) => (GeneratorSize::GptL, Precision::Bf16),
    };
    let config = GeneratorConfig::of_size(size, DATA).expect("sound");
    Generator::init(config, 0, LoadOptions { device, precision, name: None }).expect("built")
}

fn batch() -> SampleBatch {
    let samples = if device() == Device::Cpu { 4 } else { 128 };
    SampleBatch::try_new((0..samples).collect(), vec![1; samples as usize], samples as usize).expect("fits")
}

fn sampling(kind: &str) -> Sampling {
    let constant = |scale| Guidance { scale, schedule: GuidanceSchedule::Constant {}, interval: None };
    let paper = Sampling::paper(0);
    match kind {
        "unguided" => Sampling { guidance: constant(1.0), ..paper },
        "guided" => Sampling { guidance: constant(paper.guidance.scale), ..paper },
        _ => paper,
    }
}

#[divan::bench(args = KINDS, sample_count = 5)]
fn images(bencher: divan::Bencher<'_, '_>, kind: &str) {
    let (mut generator, batch, sampling) = (generator(), batch(), sampling(kind));
    // The tokens come back to the host, so the clock stops when the device has finished.
    bencher.counter(ItemsCount::new(batch.rows())).bench_local(|| generator.sample(&batch, &sampling).expect("drawn"));
}

/// Attention, head and rest of each kind, in percent, best of three.
fn fractions() {
    let (mut generator, batch) = (generator(), batch());
    for kind in KINDS {
        let sampling = sampling(kind);
        let timed = (0..3)
            .map(|_| sampling_times(generator.device(), || generator.sample(&batch, &sampling).expect("drawn")).1);
        let times = timed.min_by_key(|times| times.attention + times.head + times.rest).expect("three");
        let whole = (times.attention + times.head + times.rest).as_secs_f64();
        let percent = |part: std::time::Duration| 100.0 * part.as_secs_f64() / whole;
        let (attention, head, rest) = (percent(times.attention), percent(times.head), percent(times.rest));
        println!("{kind}: attention {attention:.0} %, head {head:.0} %, rest {rest:.0} % of {whole:.3} s");
    }
}
