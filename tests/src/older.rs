//! Outputs of an older version, small and of every kind: what wrote them, and the commands that go on with them.

use crate::{
    inception,
    s3_server::S3Server,
    workspace::{Workspace, run, shipped, text},
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Every output, by its name in the workspace and in `fixtures/older`.
pub const OUTPUTS: [&str; 5] = ["tokens", "generated", "evaluation", "generator-run", "tokenizer-run"];

/// What the version of 2026-11-27 wrote, by [`write()`].
pub fn written(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/older").join(name)
}

/// A store with the images of the sample: its addresses and version tags are the same everywhere.
pub fn bucket() -> S3Server {
    let server = S3Server::start();
    server.put_folder("bucket/images", &shipped("folder"));
    server
}

/// `restok` with these arguments, on one thread of the processor.
fn on_one_thread(workspace: &Workspace, arguments: &str) -> Command {
    let mut command = workspace.restok(arguments.split_whitespace());
    command.arg("--device-threads=1");
    command
}

/// Tokens of the sample's images, in units of twelve.
pub fn tokenize(workspace: &Workspace, server: &S3Server) -> Command {
    let mut command = on_one_thread(
        workspace,
        "tokenize --source s3://bucket/images/ --output tokens --crop adm-center-32-flip --unit-size 12 --max-reject-rate 0.5 --devices cpu",
    );
    command.args(["--tokenizer", &text(&shipped("fashion-mnist/tokenizer"))]).envs(server.environment());
    command
}

/// Twelve samples in units of four.
pub fn generate(workspace: &Workspace) -> Command {
    let mut command = on_one_thread(
        workspace,
        "generate --output generated --count 12 --unit-size 4 --batch-size 4 --guidance 2 --pictures npz,png --devices cpu",
    );
    command.args(["--generator", &text(&shipped("fashion-mnist/generator"))]);
    command.args(["--tokenizer", &text(&shipped("fashion-mnist/tokenizer"))]);
    command
}

/// Scores of those samples, by the features of the network in the file `inception`.
pub fn evaluate(workspace: &Workspace, inception: &Path) -> Command {
    let mut command = on_one_thread(
        workspace,
        "evaluate --source generated --output evaluation --batch-size 4 --unit-size 12 --allow count,resize,order,reference --devices cpu",
    );
    command.args(["--inception", &text(inception)]);
    command
}

/// A generator on those tokens, up to `steps` updates of eight.
pub fn train_generator(workspace: &Workspace, steps: u64) -> Command {
    let mut command = on_one_thread(
        workspace,
        "train-generator --source tokens --validation-source tokens --output generator-run --preset tiny --device cpu --batch-size 4 \
         --accumulation 2 --warmup-steps 2 --steps 8 --save-every 2 --log-every 1 --validate-every 50 --validation-images 8 \
         --sheet-every 50 --keep-checkpoints 1",
    );
    command.args(["--generator-config", &text(&written("generator.json"))]).arg(format!("--stop-after={steps}"));
    command.args(["--tokenizer", &text(&shipped("fashion-mnist/tokenizer"))]);
    command
}

/// A tokenizer on the sample's images, up to `steps` updates of eight.
pub fn train_tokenizer(workspace: &Workspace, server: &S3Server, steps: u64) -> Command {
    let mut command = on_one_thread(
        workspace,
        "train-tokenizer --source s3://bucket/images/ --output tokenizer-run --preset tiny --device cpu --batch-size 4 \
         --warmup-steps 2 --steps 8 --save-every 2 --log-every 1 --validate-every 50 --sheet-every 50 --max-reject-rate 0.5 \
         --keep-checkpoints 1",
    );
    command.args(["--tokenizer-config", &text(&written("tokenizer.json"))]).arg(format!("--stop-after={steps}"));
    command.envs(server.environment());
    command
}

/// Writes `fixtures/older` anew with an older program.
pub fn write(program: &str) {
    let (workspace, server) = (Workspace::new(program), bucket());
    let network = workspace.path("inception.safetensors");
    inception::save(&network).expect("written");
    run(&mut tokenize(&workspace, &server)).expect_code(0);
    run(&mut generate(&workspace)).expect_code(0);
    run(&mut evaluate(&workspace, &network)).expect_code(0);
    run(&mut train_generator(&workspace, 6)).expect_code(0);
    run(&mut train_tokenizer(&workspace, &server, 6)).expect_code(0);
    for output in OUTPUTS {
        // Features are large, and nobody reads those of another set.
        for (path, bytes) in workspace.files(output).into_iter().filter(|(path, _)| !path.starts_with("features/")) {
            let file = written(output).join(path);
            fs::create_dir_all(file.parent().expect("a folder")).expect("made");
            fs::write(file, bytes).expect("written");
        }
    }
}
