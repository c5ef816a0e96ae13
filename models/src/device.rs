//! Devices by name, and the one place where CUDA is loaded.
//!
//! The binary is linked against libtorch's CPU half alone, so that one build serves machines with and without GPUs. The CUDA
//! half, `libtorch_cuda.so`, lies beside it where the full libtorch is installed and is loaded at run time. torch remembers on
//! first use whether it is there: [`initialise`] must run before anything else touches torch.

use crate::{
    ModelError, kernels,
    shared_library::{Library, folder_of},
    torch_switches,
};
use schemas::SchemaError;
use std::{
    ffi::{CStr, c_void},
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Mutex,
};
use tch::{Tensor, kind::Element};

/// A device that is there, after [`initialise`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Device {
    /// The processor.
    Cpu,
    /// A CUDA device by its index among the visible ones.
    Cuda(usize),
}

impl Device {
    /// What kind of device it is, for the tables' metadata: `cpu-avx2`, `NVIDIA H100 80GB HBM3`. Two devices of one kind give
    /// the same tokens; of two kinds, almost the same.
    pub fn kind(self) -> String {
        match self {
            Self::Cpu => format!("cpu-{}", torch_switches::cpu_capability().to_lowercase()),
            Self::Cuda(index) => cuda_name(index).unwrap_or_else(|| "cuda".to_owned()),
        }
    }

    pub(crate) fn torch(self) -> tch::Device {
        match self {
            Self::Cpu => tch::Device::Cpu,
            Self::Cuda(index) => tch::Device::Cuda(index),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => formatter.write_str("cpu"),
            Self::Cuda(index) => write!(formatter, "cuda:{index}"),
        }
    }
}

/// What the last bits of a training depend on: the kind of device, and on a processor the number of threads.
pub fn machine(device: Device) -> String {
    match device {
        Device::Cpu => format!("{}, {} threads", device.kind(), tch::get_num_threads()),
        Device::Cuda(_) => device.kind(),
    }
}

/// Brings numbers from main memory to `device`, as a tensor of `shape`. From pinned memory the copy runs beside what the device is
/// computing, and nothing waits for it; torch's allocator keeps the pinned block until it is done.
///
/// # Errors
/// When the numbers are not as many as the shape has, or libtorch refuses.
pub(crate) fn upload<T: Element>(values: &[T], shape: &[i64], device: tch::Device) -> Result<Tensor, ModelError> {
    let fits = shape.iter().all(|&size| size >= 0) && shape.iter().product::<i64>() == values.len() as i64;
    if !fits {
        return Err(ModelError::torch(&format!("{} numbers for a tensor of shape {shape:?}", values.len())));
    }
    match device {
        tch::Device::Cuda(_) => {
            let pinned = torch_switches::pinned(values, shape)?;
            Ok(pinned.f_internal_to_copy((T::KIND, device), true)?)
        }
        _ => Ok(Tensor::f_from_slice(values)?.f_view(shape)?),
    }
}

/// A device as it is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DeviceChoice {
    /// Every CUDA device if there are any, else the processor.
    #[default]
    Auto,
    /// The processor.
    Cpu,
    /// Every CUDA device.
    AllCuda,
    /// One CUDA device.
    Cuda(usize),
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => formatter.write_str("auto"),
            Self::Cpu => formatter.write_str("cpu"),
            Self::AllCuda => formatter.write_str("cuda"),
            Self::Cuda(index) => write!(formatter, "cuda:{index}"),
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = SchemaError;

    fn from_str(name: &str) -> Result<Self, SchemaError> {
        let unknown = || SchemaError::UnknownName {
            what: "device",
            found: name.to_owned(),
            expected: "auto, cpu, cuda (all of them) or cuda:N".to_owned(),
        };
        match name {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::AllCuda),
            _ => name.strip_prefix("cuda:").and_then(|index| index.parse().ok()).map(Self::Cuda).ok_or_else(unknown),
        }
    }
}

/// Whether CUDA was loaded when torch was first used; `None` before that.
static CUDA_LOADED: Mutex<Option<bool>> = Mutex::new(None);

/// Resolves `choices` to devices, loading CUDA if one of them needs it, and sets the number of threads of one operation on the
/// processor (`None` leaves it at the number of cores). Where the processor is among them, memory of its tensors is kept for the
/// next ones of the same size from here on. Must come before any other use of torch in the process.
///
/// `auto` takes the processor where no NVIDIA driver is found. Where one is found and CUDA does not load, that is an error and
/// not a silent run on the processor.
///
/// # Errors
/// When a CUDA device is asked for and libtorch's CUDA half, a driver or the device itself is not there, or when an earlier call
/// decided against CUDA.
pub fn initialise(choices: &[DeviceChoice], threads: Option<usize>) -> Result<Vec<Device>, ModelError> {
    let mut loaded = CUDA_LOADED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    check_versions(torch_switches::loaded_and_compiled_versions())?;
    let asked = choices.iter().find(|choice| matches!(choice, DeviceChoice::AllCuda | DeviceChoice::Cuda(_)));
    let found = choices.contains(&DeviceChoice::Auto) && driver_is_present();
    let needs_cuda = asked.is_some() || found;
    match *loaded {
        None if needs_cuda => {
            load_cuda(&asked.unwrap_or(&DeviceChoice::Auto).to_string())?;
            *loaded = Some(true);
        }
        None => *loaded = Some(false),
        Some(false) if asked.is_some() => {
            return Err(ModelError::Device {
                asked: asked.map(ToString::to_string).unwrap_or_default(),
                problem: "torch was first used in this process without CUDA and cannot take it up later".to_owned(),
                advice: "Name all devices in the first call of initialise.".to_owned(),
            });
        }
        Some(_) => {}
    }
    let count = if *loaded == Some(true) { usize::try_from(tch::Cuda::device_count()).unwrap_or(0) } else { 0 };
    if let Some(threads) = threads {
        tch::set_num_threads(i32::try_from(threads.max(1)).unwrap_or(i32::MAX));
    }
    check_bindings()?;
    kernels::off_without_cuda(*loaded == Some(true));
    let devices = resolve(choices, count)?;
    if devices.contains(&Device::Cpu) {
        torch_switches::keep_tensor_memory()?;
    }
    Ok(devices)
}

/// Torch's inline functions are compiled into this program and know where the fields of a tensor lie. From libtorch 2.12 to 2.13
/// they moved: over another library, a program writes flags into the number of a tensor's elements.
fn check_versions([loaded, compiled]: [(u32, u32); 2]) -> Result<(), ModelError> {
    if loaded == compiled {
        return Ok(());
    }
    let shown = |(major, minor)| format!("{major}.{minor}");
    Err(other_libtorch(format!(
        "libtorch {} is loaded, and this program was built over {}",
        shown(loaded),
        shown(compiled)
    )))
}

/// tch's C++ is compiled apart from ours, and cargo leaves it alone when another libtorch appears under the same path. Its tensor
/// must be one to the library too.
fn check_bindings() -> Result<(), ModelError> {
    let sum = tch::Tensor::f_from_slice(&[1.0_f32, 2.0, 4.0])
        .and_then(|tensor| tensor.f_view([1, 3, 1, 1])?.f_sum(tch::Kind::Float)?.f_double_value(&[]));
    match sum {
        Ok(7.0) => Ok(()),
        _ => Err(other_libtorch("tch was compiled against another libtorch than the one that is loaded".to_owned())),
    }
}

fn other_libtorch(problem: String) -> ModelError {
    let advice = "Build it again: `make build` (docs/libtorch.md).";
    ModelError::Device { asked: "any".to_owned(), problem, advice: advice.to_owned() }
}

/// The devices that `choices` mean on a machine with `cuda_devices`, each once, in the order named.
fn resolve(choices: &[DeviceChoice], cuda_devices: usize) -> Result<Vec<Device>, ModelError> {
    let mut devices = Vec::new();
    for choice in choices {
        let missing = |problem: String| ModelError::Device {
            asked: choice.to_string(),
            problem,
            advice: "Check `nvidia-smi` and CUDA_VISIBLE_DEVICES, or compute on the processor: device cpu.".to_owned(),
        };
        match *choice {
            DeviceChoice::Auto if cuda_devices == 0 => devices.push(Device::Cpu),
            DeviceChoice::Cpu => devices.push(Device::Cpu),
            DeviceChoice::AllCuda if cuda_devices == 0 => {
                return Err(missing(
                    "libtorch sees no CUDA device: there is no NVIDIA driver, or no visible GPU".to_owned(),
                ));
            }
            DeviceChoice::Auto | DeviceChoice::AllCuda => devices.extend((0..cuda_devices).map(Device::Cuda)),
            DeviceChoice::Cuda(index) if index < cuda_devices => devices.push(Device::Cuda(index)),
            DeviceChoice::Cuda(_) => {
                return Err(missing(format!("libtorch sees {cuda_devices} CUDA devices, counted from 0")));
            }
        }
    }
    let mut seen = std::collections::HashSet::new();
    devices.retain(|device| seen.insert(*device));
    Ok(devices)
}

/// Version of libtorch, such as `2.13.0`; with fused kernels, which round otherwise, `2.13.0, fused kernels`.
pub fn libtorch_version() -> String {
    let version = torch_switches::torch_version();
    if kernels::are_on() { format!("{version}, fused kernels") } else { version }
}

/// Loads `libtorch_cuda.so` from the folder of the libtorch in use. Its own run path finds cuDNN and the rest.
fn load_cuda(asked: &str) -> Result<(), ModelError> {
    let folder = libtorch_folder().ok_or_else(|| ModelError::Device {
        asked: asked.to_owned(),
        problem: "the folder of libtorch cannot be found".to_owned(),
        advice: "Compute on the processor: device cpu.".to_owned(),
    })?;
    let file = folder.join("libtorch_cuda.so");
    if !file.exists() {
        return Err(ModelError::Device {
            asked: asked.to_owned(),
            problem: format!("the libtorch in {} has no CUDA half (no libtorch_cuda.so)", folder.display()),
            advice: "Install the full one (`make setup` does, on a machine with an NVIDIA GPU), or compute on the processor: device cpu."
                .to_owned(),
        });
    }
    Library::open_for_all(&file).map(drop).map_err(|problem| ModelError::Device {
        asked: asked.to_owned(),
        problem: format!("CUDA does not load: {problem}"),
        advice:
            "Install all of PyTorch's NVIDIA libraries (`make setup` on a machine with a GPU), or compute on the processor: device cpu."
                .to_owned(),
    })
}

fn driver_is_present() -> bool {
    Path::new("/proc/driver/nvidia/version").exists()
        || Path::new("/dev/nvidiactl").exists()
        || Path::new("/dev/dxg").exists()
}

/// The folder that the running process took libtorch_cpu from; `None` where the system does not say. A run path may have led through a symbolic
/// link; CUDA's own relative run path starts from the real place.
pub fn libtorch_folder() -> Option<PathBuf> {
    // at::globalContext(), which every libtorch_cpu has.
    Library::process().symbol(c"_ZN2at13globalContextEv").ok().and_then(folder_of)
}

/// The GPU's name as the driver tells it. libtorch has it only in a C++ struct whose layout belongs to CUDA's headers.
fn cuda_name(index: usize) -> Option<String> {
    type DeviceGet = unsafe extern "C" fn(*mut i32, i32) -> i32;
    type DeviceGetName = unsafe extern "C" fn(*mut u8, i32, i32) -> i32;
    let driver = Library::open(Path::new("libcuda.so.1")).ok()?;
    let (get, get_name) = (driver.symbol(c"cuDeviceGet").ok()?, driver.symbol(c"cuDeviceGetName").ok()?);
    let mut name = [0_u8; 128];
    #[expect(
        unsafe_code,
        reason = "signatures of the CUDA driver API; CUDA is initialised, since the device was counted"
    )]
    unsafe {
        let get = std::mem::transmute::<*mut c_void, DeviceGet>(get);
        let get_name = std::mem::transmute::<*mut c_void, DeviceGetName>(get_name);
        let mut device = 0;
        if get(&mut device, i32::try_from(index).ok()?) != 0 || get_name(name.as_mut_ptr(), 127, device) != 0 {
            return None;
        }
    }
    CStr::from_bytes_until_nul(&name).ok().map(|name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_reads_back_from_its_name() {
        for choice in [DeviceChoice::Auto, DeviceChoice::Cpu, DeviceChoice::AllCuda, DeviceChoice::Cuda(3)] {
            assert_eq!(choice.to_string().parse::<DeviceChoice>().expect("own name"), choice);
        }
        for name in ["gpu", "cuda:", "cuda:-1", "cuda:x", ""] {
            assert!(name.parse::<DeviceChoice>().is_err(), "{name}");
        }
    }

    #[test]
    fn choices_resolve_to_each_device_once() {
        let two = resolve(&[DeviceChoice::Cuda(1), DeviceChoice::AllCuda, DeviceChoice::Auto], 2).expect("two devices");
        assert_eq!(two, [Device::Cuda(1), Device::Cuda(0)]);
        assert_eq!(resolve(&[DeviceChoice::Auto], 0).expect("a processor"), [Device::Cpu]);
    }

    #[test]
    fn a_device_that_is_not_there_is_named() {
        for (choice, devices) in [(DeviceChoice::AllCuda, 0), (DeviceChoice::Cuda(2), 2)] {
            let error = resolve(&[choice], devices).expect_err("not there").to_string();
            assert!(error.contains(&choice.to_string()) && error.contains("device cpu"), "{error}");
        }
    }

    #[test]
    fn a_program_over_another_libtorch_is_refused() {
        check_versions(torch_switches::loaded_and_compiled_versions()).expect("built over the one that is loaded");
        check_bindings().expect("tch as well");
        let error = check_versions([(2, 11), (2, 13)]).expect_err("other fields").to_string();
        assert!(error.contains("2.11 is loaded") && error.contains("built over 2.13"), "{error}");
    }

    #[test]
    fn numbers_arrive_in_their_shape_and_others_are_refused() {
        let numbers: Vec<i16> = (0..24).collect();
        let tensor = upload(&numbers, &[2, 3, 4], tch::Device::Cpu).expect("24 numbers");
        assert_eq!((tensor.size(), tensor.kind()), (vec![2, 3, 4], tch::Kind::Int16));
        assert_eq!(tensor.int64_value(&[1, 2, 3]), 23);
        for shape in [&[5, 5][..], &[-1, 24], &[], &[-2, -12]] {
            let refused = upload(&numbers, shape, tch::Device::Cpu);
            assert!(refused.is_err(), "{shape:?}");
        }
    }

    #[test]
    fn the_folder_of_libtorch_holds_libtorch() {
        let folder = libtorch_folder().expect("this test is linked against it");
        assert!(folder.join("libtorch_cpu.so").exists(), "{}", folder.display());
    }
}
