//! Commands that make a file that restok reads out of one that it does not, for errors to print: where PyTorch is installed.

use std::path::Path;

/// The command that turns pickles of a state into `safetensors`. States within the pickle (`model`, `ema`, `state_dict`) become names in front of
/// the tensors' own; what is no tensor is left out.
pub fn pickle_conversion_command(pickles: &[&Path], safetensors: &Path) -> String {
    let files: Vec<String> = pickles.iter().map(|pickle| quoted(pickle)).collect();
    format!(
        "python3 -c \"import sys, torch; from safetensors.torch import save_file; parts = [torch.load(file, \
         map_location='cpu', weights_only=True) for file in sys.argv[2:]]; state = {{}}; \
         [state.update({{name: value}} if torch.is_tensor(value) else {{f'{{name}}.{{inner}}': tensor for inner, tensor in \
         value.items() if torch.is_tensor(tensor)}} if isinstance(value, dict) else {{}}) for part in parts for name, value in \
         part.items()]; save_file({{name: tensor.contiguous().clone() for name, tensor in state.items()}}, sys.argv[1])\" {} {}",
        quoted(safetensors),
        files.join(" ")
    )
}

/// The command for a pickle that has the name of a safetensors file: the pickle gets another name first.
pub(super) fn renamed_pickle_conversion_command(file: &Path) -> String {
    let pickle = file.with_extension("pickle");
    format!("mv {} {} && {}", quoted(file), quoted(&pickle), pickle_conversion_command(&[&pickle], file))
}

/// Which tensors of a file a command keeps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keep<'a> {
    /// Those whose names begin so; they lose it.
    pub(crate) prefix: &'a str,
    /// But not those whose names begin with one of these.
    pub(crate) without: &'a [String],
}

/// The command that keeps some tensors of `files` and writes them to `out`. A file that would be written over gets another name first.
pub(crate) fn keeping_command(files: &[&Path], out: &Path, keep: Keep<'_>) -> String {
    let Keep { prefix, without } = keep;
    let mut conditions = Vec::new();
    let mut name = "name".to_owned();
    if !prefix.is_empty() {
        name = format!("name[{}:]", prefix.chars().count());
        conditions.push(format!("name.startswith({})", python(prefix)));
    }
    if !without.is_empty() {
        let starts: Vec<String> = without.iter().map(|start| format!("{},", python(start))).collect();
        conditions.push(format!("not name.startswith(({}))", starts.join(" ")));
    }
    let original = out.with_extension("original.safetensors");
    let moved = match files.contains(&out) {
        true => format!("mv {} {} && ", quoted(out), quoted(&original)),
        false => String::new(),
    };
    let files: Vec<String> = files.iter().map(|&file| quoted(if file == out { &original } else { file })).collect();
    // Files have names as wrappers left them; what is to be kept is told in names without.
    let wrappers = super::WRAPPERS.map(python).join(", ");
    format!(
        "{moved}python3 -c \"import sys; from safetensors.torch import load_file, save_file; save_file({{{name}: tensor for file in \
         sys.argv[2:] for stored, tensor in load_file(file).items() for name in ['.'.join(part for part in stored.split('.') if part \
         not in ({wrappers}))] if {}}}, sys.argv[1])\" {} {}",
        conditions.join(" and "),
        quoted(out),
        files.join(" ")
    )
}

/// A path as a shell reads it.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "'\\''"))
}

/// A text as Python reads it within a shell's double quotes.
fn python(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('\'', "\\'");
    // The shell takes one more level of backslashes off, and would expand the others.
    let text: String = text
        .chars()
        .flat_map(|letter| matches!(letter, '\\' | '"' | '$' | '`').then_some('\\').into_iter().chain([letter]))
        .collect();
    format!("'{text}'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_a_command_writes_over_is_kept_under_another_name() {
        let file = Path::new("it's/model.safetensors");
        let command = keeping_command(&[file], file, Keep { prefix: "module.", without: &[] });
        for part in [
            r"mv 'it'\''s/model.safetensors' 'it'\''s/model.original.safetensors' && python3",
            "name[7:]: tensor",
            "if name.startswith('module.')",
            r"sys.argv[1])",
        ] {
            assert!(command.contains(part), "{part}: {command}");
        }
        assert!(command.ends_with(r"'it'\''s/model.safetensors' 'it'\''s/model.original.safetensors'"), "{command}");
        let shards = [Path::new("a/model-1.safetensors"), Path::new("a/model-2.safetensors")];
        let gone = ["ema.".to_owned(), "n'\"$".to_owned()];
        let command = keeping_command(&shards, Path::new("a/model.safetensors"), Keep { prefix: "", without: &gone });
        assert!(!command.contains("mv "), "{command}");
        assert!(command.contains(r#"not name.startswith(('ema.', 'n\\'\"\$',))"#), "{command}");
    }
}
