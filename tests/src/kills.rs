//! Kill loops: a command that is killed again and again, and started again, and never comes to its end before the test lets it.

use crate::{
    digest,
    random::Random,
    workspace::{Hold, Workspace, start},
};
use std::{path::Path, process::Command, thread::sleep, time::Duration};

/// Kills of the contract.
pub const KILLS: usize = 20;

/// Starts `command`, which works on `output`, [`KILLS`] times, and kills it each time after it has put up to `most_files` files
/// more, at a random instant within the work on the next one. `undisturbed` is the finished output of the same plan.
///
/// Progress, not the clock, decides when; and however late the test gets to its kill, the command has not ended: in the place of the
/// last unit's tokens stands a pipe, which it waits to read for ever. That pipe is gone when this returns.
///
/// # Panics
/// When not every attempt was killed, or less than half of them between the first unit and the last.
pub fn kill_again_and_again(
    workspace: &Workspace,
    command: impl Fn() -> Command,
    (undisturbed, output): (&str, &str),
    most_files: u64,
    mut random: Random,
) {
    let expected = workspace.files(undisturbed);
    let units = digest::finished_units(&expected);
    let last_tokens = expected.keys().rfind(|path| path.starts_with("tokens/")).expect("a file with tokens");
    let hold = Hold::at(workspace.path(output).join(last_tokens));
    // What every attempt can come to: all but the last unit, and what is made when that is there.
    let last_unit = format!("{:05}", units - 1);
    let of_units = ["tokens/", "images/", "_state/"];
    let of_others =
        |path: &&String| of_units.iter().any(|folder| path.starts_with(folder)) && !path.contains(&last_unit);
    let within_reach: Vec<&String> = expected.keys().filter(of_others).collect();
    let count = |names: &[&String]| names.iter().filter(|name| workspace.path(output).join(name).is_file()).count();
    let markers: Vec<&String> = within_reach.iter().copied().filter(|path| path.starts_with("_state/")).collect();

    let mut between_first_and_last = 0;
    for attempt in 0..KILLS {
        // Every fifth kill comes before the first file: while the program starts, lists or plans.
        let more_files = if attempt % 5 == 4 { 0 } else { 1 + random.below(most_files) as usize };
        let files = (count(&within_reach) + more_files).min(within_reach.len());
        let mut running = start(&mut command());
        let what = format!("{files} files of the output in attempt {attempt}");
        assert!(running.wait_until(&what, || count(&within_reach) >= files), "attempt {attempt} ended by itself");
        // No event: any instant will do.
        sleep(Duration::from_micros(random.below(15_000)));
        running.kill();
        let finished = running.finish();
        assert_eq!(finished.status.code(), None, "attempt {attempt} ended by itself: {}", finished.stderr);
        between_first_and_last += usize::from(count(&markers) > 0);
        assert!(!Path::new(&workspace.path(output)).join(schemas::SUCCESS_PATH).exists(), "attempt {attempt}");
    }
    assert!(between_first_and_last >= KILLS / 2, "{between_first_and_last} kills after the first unit");
    hold.remove();
}
