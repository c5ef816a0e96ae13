//! Says which stage stands still when nothing moves any more.

use crate::{PipelineError, telemetry::Telemetry};
use std::time::Duration;

/// Resolves when units were worked on and no item went through any stage for `limit`, with an error that names every stage's state.
/// Never, if `limit` is zero.
pub(crate) async fn watch(telemetry: &Telemetry, limit: Duration) -> PipelineError {
    if limit.is_zero() {
        return std::future::pending().await;
    }
    // Looking ten times in the limit makes the watchdog at most a tenth late.
    let pause = limit / 10;
    let mut last = (telemetry.movement(), tokio::time::Instant::now());
    loop {
        tokio::time::sleep(pause).await;
        let movement = telemetry.movement();
        // An engine may take its time between two units.
        if movement != last.0 || !telemetry.is_at_work() {
            last = (movement, tokio::time::Instant::now());
        } else if last.1.elapsed() >= limit {
            return PipelineError::Stalled { seconds: limit.as_secs(), stages: telemetry.snapshot().describe_stages() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Stage;
    use std::sync::Arc;

    #[tokio::test(start_paused = true)]
    async fn silence_is_reported_with_every_stage_and_movement_is_not() {
        let telemetry = Arc::new(Telemetry::new());
        let watched = Arc::clone(&telemetry);
        let mut watching = std::pin::pin!(watch(&watched, Duration::from_secs(60)));
        let idle = tokio::time::timeout(Duration::from_secs(500), &mut watching).await;
        assert!(idle.is_err(), "no unit was there to be worked on");
        telemetry.unit_begun(0);
        for _ in 0..10 {
            let pause = tokio::time::timeout(Duration::from_secs(50), &mut watching).await;
            assert!(pause.is_err(), "50 seconds of silence are not 60");
            telemetry.record(Stage::Encode, 1, 0, Duration::ZERO);
        }
        let error = watching.await.to_string();
        assert!(error.starts_with("nothing moved for 60 seconds; list: 0 inputs"), "{error}");
        assert!(error.contains("encode: 10 views"), "{error}");
    }
}
