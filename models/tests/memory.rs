//! What a batch takes, foretold from smaller ones. Alone in its process, because memory is counted for all of one.

use models::{BatchMemory, Device, DeviceChoice, VisualTokenizer, initialise, memory_limit};
use schemas::PixelBatch;
use std::path::Path;

#[test]
fn what_a_batch_takes_on_a_processor_is_foretold_within_a_tenth() {
    initialise(&[DeviceChoice::Cpu], Some(1)).expect("there is a processor");
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/tokenizer"));
    let options = models::LoadOptions { device: Device::Cpu, precision: models::Precision::Fp32, name: None };
    let tokenizer = VisualTokenizer::load(folder, options).expect("the fixture");
    let foretold = tokenizer.encoding_memory().expect("measured");
    let side = tokenizer.resolution();
    // One batch that is larger than any that was measured, seen by the same means.
    let seen = BatchMemory::measure(Device::Cpu, |_| {
        let black = vec![0; 12 * side * side * PixelBatch::CHANNELS];
        tokenizer.encode(&PixelBatch::try_new(black, 12, 12, side, side)?)?;
        Ok(())
    });
    let (seen, foretold) = (seen.expect("measured").of_rows(0) as f64, foretold.of_rows(12) as f64);
    assert!(seen > (64 << 20) as f64 && (foretold / seen - 1.0).abs() < 0.1, "foretold {foretold}, seen {seen}");
    assert!(memory_limit(Device::Cpu).expect("the processor says") > seen as u64);
}
