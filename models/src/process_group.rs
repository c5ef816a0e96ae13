//! Processes that train one network together: torch's own store, process groups and gradient reducer (`shim/process_group.cpp`).
//!
//! A group has as many processes as `WORLD_SIZE` says, of which each has a rank. All of them call the same collective operations in the same
//! order. Tensors on the CPU go through Gloo, those on CUDA devices through NCCL; what the processes must agree on beside tensors goes through
//! Gloo always, so that no device waits for it. A process that is lost or silent ends every other one with an error that names it.

use crate::{Device, ModelError, torch_switches::check};
use std::{
    ffi::{CString, c_char, c_int, c_void},
    fmt::Debug,
    ptr::NonNull,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tch::Tensor;
use torch_sys::C_tensor;

#[expect(unsafe_code, reason = "declares the C interface of shim/process_group.cpp, which is compiled into this crate")]
mod shim {
    use super::{C_tensor, c_char, c_int, c_void};
    unsafe extern "C" {
        pub(super) fn restok_store_open(
            host: *const c_char,
            port: u16,
            is_server: c_int,
            timeout_ms: i64,
            store: *mut *mut c_void,
        ) -> c_int;
        pub(super) fn restok_store_port(store: *mut c_void) -> u16;
        pub(super) fn restok_store_set(store: *mut c_void, key: *const c_char, value: *const u8, bytes: usize)
        -> c_int;
        pub(super) fn restok_store_get(
            store: *mut c_void,
            key: *const c_char,
            value: *mut *mut c_void,
            bytes: *mut *const u8,
            count: *mut usize,
        ) -> c_int;
        pub(super) fn restok_bytes_free(value: *mut c_void);
        pub(super) fn restok_store_has(store: *mut c_void, key: *const c_char, has: *mut c_int) -> c_int;
        pub(super) fn restok_store_free(store: *mut c_void);
        pub(super) fn restok_group_open(
            store: *mut c_void,
            prefix: *const c_char,
            rank: c_int,
            size: c_int,
            timeout_ms: i64,
            cuda_device: c_int,
            group: *mut *mut c_void,
        ) -> c_int;
        pub(super) fn restok_set_current_device(cuda_device: c_int) -> c_int;
        pub(super) fn restok_group_free(group: *mut c_void);
        pub(super) fn restok_group_abort(group: *mut c_void) -> c_int;
        pub(super) fn restok_group_all_reduce(group: *mut c_void, tensor: *mut C_tensor, largest: c_int) -> c_int;
        pub(super) fn restok_group_broadcast(
            group: *mut c_void,
            tensors: *const *mut C_tensor,
            count: usize,
            root: c_int,
        ) -> c_int;
        pub(super) fn restok_reducer_open(
            group: *mut c_void,
            parameters: *const *mut C_tensor,
            count: usize,
            reducer: *mut *mut c_void,
        ) -> c_int;
        pub(super) fn restok_reducer_prepare(reducer: *mut c_void, loss: *mut C_tensor) -> c_int;
        pub(super) fn restok_reducer_free(reducer: *mut c_void);
    }
}

/// Where the processes of a group meet, as `torchrun` and its like tell each of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendezvous {
    /// Host of the store (`MASTER_ADDR`).
    pub host: String,
    /// Port of the store (`MASTER_PORT`).
    pub port: u16,
    /// Number of this process, from 0 (`RANK`).
    pub rank: usize,
    /// Processes in all (`WORLD_SIZE`).
    pub world_size: usize,
    /// Whether somebody else has the store already (`TORCHELASTIC_USE_AGENT_STORE`); else the process of rank 0 opens it.
    pub is_open: bool,
}

/// A store that belongs to none of the processes, as the one that `torchrun` opens: it is there as long as this is.
#[derive(Debug)]
pub struct StoreServer(Store);

impl StoreServer {
    /// Opens one on this machine, on a port that is free.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn open() -> Result<Self, ModelError> {
        Store::open(("localhost", 0), true, Duration::from_secs(60)).map(Self)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.0.port()
    }
}

/// How long a process that lost another one waits for the reports of the others.
const PEER_REPORTS: Duration = Duration::from_secs(5);
/// Pause between two reads of the store.
const POLL: Duration = Duration::from_millis(50);

/// An object of torch's that C++ owns, with what frees it.
#[derive(Debug)]
struct Owned {
    pointer: NonNull<c_void>,
    free: unsafe extern "C" fn(*mut c_void),
}

#[expect(
    unsafe_code,
    reason = "torch calls its stores, groups and reducers from threads of its own; each locks what it changes, and we free them once"
)]
unsafe impl Send for Owned {}
#[expect(unsafe_code, reason = "as above")]
unsafe impl Sync for Owned {}

impl Owned {
    fn new(pointer: *mut c_void, free: unsafe extern "C" fn(*mut c_void)) -> Result<Self, ModelError> {
        let pointer = NonNull::new(pointer).ok_or_else(|| ModelError::torch("a process group came back empty"))?;
        Ok(Self { pointer, free })
    }

    fn as_ptr(&self) -> *mut c_void {
        self.pointer.as_ptr()
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "made by the function that this one belongs to, and freed once")]
        unsafe {
            (self.free)(self.as_ptr());
        }
    }
}

fn name(text: &str) -> Result<CString, ModelError> {
    CString::new(text).map_err(|_| ModelError::torch("a name with a zero byte"))
}

fn milliseconds(of: Duration) -> i64 {
    i64::try_from(of.as_millis()).unwrap_or(i64::MAX)
}

/// A place where processes leave short texts for each other.
#[derive(Debug)]
struct Store {
    store: Owned,
    /// Of the keys of one group. A store may outlive the processes, and hold what earlier ones said.
    prefix: String,
}

impl Store {
    /// The store at a host and port, with 0 for any that is free; `timeout` is the longest wait for it.
    fn open((host, port): (&str, u16), is_server: bool, timeout: Duration) -> Result<Self, ModelError> {
        let host = name(host)?;
        let mut store = std::ptr::null_mut();
        #[expect(unsafe_code, reason = "the text outlives the call; on success the result is a store that we own")]
        check(unsafe {
            shim::restok_store_open(host.as_ptr(), port, c_int::from(is_server), milliseconds(timeout), &mut store)
        })?;
        Ok(Self { store: Owned::new(store, shim::restok_store_free)?, prefix: "restok/".to_owned() })
    }

    fn key(&self, key: &str) -> Result<CString, ModelError> {
        name(&format!("{}{key}", self.prefix))
    }

    fn set(&self, key: &str, value: &str) -> Result<(), ModelError> {
        let key = self.key(key)?;
        #[expect(unsafe_code, reason = "key and value outlive the call")]
        check(unsafe { shim::restok_store_set(self.store.as_ptr(), key.as_ptr(), value.as_ptr(), value.len()) })
    }

    /// The value of a key, if it is there.
    fn get(&self, key: &str) -> Result<Option<String>, ModelError> {
        if !self.has(key)? {
            return Ok(None);
        }
        let key = self.key(key)?;
        let (mut value, mut bytes, mut count) = (std::ptr::null_mut(), std::ptr::null(), 0);
        #[expect(
            unsafe_code,
            reason = "on success the bytes live until the value is freed, which happens after they were copied"
        )]
        unsafe {
            check(shim::restok_store_get(self.store.as_ptr(), key.as_ptr(), &mut value, &mut bytes, &mut count))?;
            let value = Owned::new(value, shim::restok_bytes_free)?;
            let text = match count {
                0 => String::new(),
                _ => String::from_utf8_lossy(std::slice::from_raw_parts(bytes, count)).into_owned(),
            };
            drop(value);
            Ok(Some(text))
        }
    }

    fn has(&self, key: &str) -> Result<bool, ModelError> {
        let key = self.key(key)?;
        let mut has = 0;
        #[expect(unsafe_code, reason = "the key outlives the call")]
        check(unsafe { shim::restok_store_has(self.store.as_ptr(), key.as_ptr(), &mut has) })?;
        Ok(has != 0)
    }

    fn port(&self) -> u16 {
        #[expect(unsafe_code, reason = "the store is open")]
        unsafe {
            shim::restok_store_port(self.store.as_ptr())
        }
    }
}

/// The processes that train together.
#[derive(Debug)]
pub struct ProcessGroup {
    // Dropped in this order: groups use the store.
    /// For tensors of the device.
    device: Option<Owned>,
    /// For what is agreed on beside tensors.
    control: Owned,
    store: Store,
    /// Number of the CUDA device that this process trains on.
    cuda_device: Option<c_int>,
    rank: usize,
    world_size: usize,
    timeout: Duration,
}

impl ProcessGroup {
    /// Meets the others; `device` is where this process trains, `timeout` the longest wait for them, to appear or to answer.
    ///
    /// # Errors
    /// When they do not all appear in time or train on another kind of device, the port is taken, or the store cannot be reached.
    pub fn meet(rendezvous: &Rendezvous, device: Device, timeout: Duration) -> Result<Arc<Self>, ModelError> {
        let Rendezvous { ref host, port, rank, world_size, is_open } = *rendezvous;
        let failed = |problem: String| ModelError::ProcessGroup { rank, world_size, problem };
        let store = Store::open((host, port), rank == 0 && !is_open, timeout).map_err(|error| {
            let problem = torch_message(&error);
            failed(format!("cannot open or reach the store at {host}:{port} (MASTER_ADDR, MASTER_PORT): {problem}"))
        })?;
        Self::join(store, rendezvous, device, timeout).map_err(|error| match error {
            ModelError::Torch { .. } => {
                let problem = torch_message(&error);
                let advice = advice_for(host, &problem);
                failed(format!("cannot form a group within {} s: {problem}{advice}", timeout.as_secs()))
            }
            error => error,
        })
    }

    fn join(
        mut store: Store,
        rendezvous: &Rendezvous,
        device: Device,
        timeout: Duration,
    ) -> Result<Arc<Self>, ModelError> {
        let Rendezvous { rank, world_size, .. } = *rendezvous;
        store.prefix = Arrival::new(rank, world_size, device).meet(&store, timeout)?;
        let open = |kind: &str, cuda_device: c_int| -> Result<Owned, ModelError> {
            let prefix = store.key(kind)?;
            let mut group = std::ptr::null_mut();
            #[expect(
                unsafe_code,
                reason = "store and prefix outlive the call; on success the result is a group that we own"
            )]
            check(unsafe {
                shim::restok_group_open(
                    store.store.as_ptr(),
                    prefix.as_ptr(),
                    rank as c_int,
                    world_size as c_int,
                    milliseconds(timeout),
                    cuda_device,
                    &mut group,
                )
            })?;
            Owned::new(group, shim::restok_group_free)
        };
        let cuda_device = match device {
            Device::Cuda(number) => Some(c_int::try_from(number).unwrap_or(0)),
            Device::Cpu => None,
        };
        cuda_device.map_or(Ok(()), set_current_device)?;
        let device = cuda_device.map(|number| open("nccl", number)).transpose()?;
        let control = open("gloo", -1)?;
        Ok(Arc::new(Self { device, control, store, cuda_device, rank, world_size, timeout }))
    }

    /// Lets what this thread asks of CUDA without naming a device go to the one that this process trains on: memory is taken on no other. Each
    /// thread has its own; that which met the others has it already.
    ///
    /// # Errors
    /// When the libtorch in use cannot do it.
    pub fn use_device(&self) -> Result<(), ModelError> {
        self.cuda_device.map_or(Ok(()), set_current_device)
    }

    /// Number of this process, from 0.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Processes in all.
    pub fn world_size(&self) -> usize {
        self.world_size
    }

    /// The error of this process for a problem of the group.
    pub fn error(&self, problem: impl Into<String>) -> ModelError {
        ModelError::ProcessGroup { rank: self.rank, world_size: self.world_size, problem: problem.into() }
    }

    fn of(&self, tensor: &Tensor) -> &Owned {
        match &self.device {
            Some(nccl) if tensor.device().is_cuda() => nccl,
            _ => &self.control,
        }
    }

    fn all_reduce(&self, tensor: &Tensor, largest: bool) -> Result<(), ModelError> {
        let group = self.of(tensor);
        #[expect(unsafe_code, reason = "the tensor outlives the call, which waits for the result")]
        self.explained(check(unsafe {
            shim::restok_group_all_reduce(group.as_ptr(), tensor.as_ptr().cast_mut(), c_int::from(largest))
        }))
    }

    /// The mean of `tensor` over all processes, in its place.
    ///
    /// # Errors
    /// When a process is lost or silent.
    pub(crate) fn mean(&self, tensor: &mut Tensor) -> Result<(), ModelError> {
        let _no_grad = tch::no_grad_guard();
        self.all_reduce(tensor, false)?;
        drop(tensor.f_div_scalar_(self.world_size as f64)?);
        Ok(())
    }

    /// The largest of one number over all processes: whether any of them wants something, for example.
    ///
    /// # Errors
    /// When a process is lost or silent.
    pub fn max(&self, number: i64) -> Result<i64, ModelError> {
        let tensor = Tensor::f_from_slice(&[number])?;
        self.all_reduce(&tensor, true)?;
        Ok(tensor.f_int64_value(&[0])?)
    }

    /// The sums of some numbers over all processes.
    ///
    /// # Errors
    /// When a process is lost or silent.
    pub fn sum(&self, numbers: &[f64]) -> Result<Vec<f64>, ModelError> {
        let tensor = Tensor::f_from_slice(numbers)?;
        self.all_reduce(&tensor, false)?;
        Ok(Vec::try_from(&tensor)?)
    }

    /// Puts the sums over all processes in the place of some tensors of few numbers, which are added in float64: counts come out exact.
    ///
    /// # Errors
    /// When a process is lost or silent.
    pub(crate) fn add_up(&self, tensors: &mut [&mut Tensor]) -> Result<(), ModelError> {
        let _no_grad = tch::no_grad_guard();
        let flat = tensors
            .iter()
            .map(|tensor| tensor.f_to_device(tch::Device::Cpu)?.f_to_kind(tch::Kind::Double)?.f_reshape([-1]));
        let all = Tensor::f_cat(&flat.collect::<Result<Vec<_>, _>>()?, 0)?;
        self.all_reduce(&all, false)?;
        let mut start = 0;
        for tensor in tensors {
            let count = tensor.numel() as i64;
            let sums = all.f_narrow(0, start, count)?.f_reshape(tensor.size().as_slice())?;
            **tensor = sums.f_to_kind(tensor.kind())?.f_to_device(tensor.device())?;
            start += count;
        }
        Ok(())
    }

    /// Gives all processes the tensors of rank 0, in place.
    ///
    /// # Errors
    /// When a process is lost or silent.
    pub(crate) fn broadcast<'a>(&self, tensors: impl IntoIterator<Item = &'a Tensor>) -> Result<(), ModelError> {
        let _no_grad = tch::no_grad_guard();
        let (on_cuda, others): (Vec<&Tensor>, Vec<_>) =
            tensors.into_iter().partition(|tensor| tensor.device().is_cuda());
        for tensors in [on_cuda, others] {
            let Some(first) = tensors.first() else { continue };
            let pointers: Vec<_> = tensors.iter().map(|tensor| tensor.as_ptr().cast_mut()).collect();
            let group = self.of(first);
            #[expect(unsafe_code, reason = "the tensors outlive the call, which waits for the result")]
            self.explained(check(unsafe {
                shim::restok_group_broadcast(group.as_ptr(), pointers.as_ptr(), pointers.len(), 0)
            }))?;
        }
        Ok(())
    }

    /// Whether some numbers, as many everywhere, are the same in all processes.
    ///
    /// # Errors
    /// When a process is lost or silent.
    pub(crate) fn all_equal(&self, numbers: &Tensor) -> Result<bool, ModelError> {
        let own = Tensor::f_cat(&[numbers, &numbers.f_neg()?], 0)?;
        let largest = own.f_detach_copy()?;
        self.all_reduce(&largest, true)?;
        Ok(own.f_isclose(&largest, 0.0, 0.0, true)?.f_all()?.f_int64_value(&[])? == 1)
    }

    /// The text that rank 0 gives under `key`, for all: each calls this once, with its own.
    ///
    /// # Errors
    /// When rank 0 ends before, or does not say it in time.
    pub fn text_of_first(&self, key: &str, own: &str) -> Result<String, ModelError> {
        if self.rank == 0 {
            self.explained(self.store.set(key, own))?;
            return Ok(own.to_owned());
        }
        let started = Instant::now();
        loop {
            if let Some(text) = self.explained(self.store.get(key))? {
                return Ok(text);
            }
            if self.explained(self.store.has("ended/0"))? || started.elapsed() > self.timeout {
                let seconds = self.timeout.as_secs();
                return self.explained(Err(ModelError::torch(&format!("no {key} of rank 0 within {seconds} s"))));
            }
            std::thread::sleep(POLL);
        }
    }

    /// Reports to the other processes why this one ends.
    pub fn report_end(&self, reason: &str) {
        // Whoever hosted the store may be gone already, and then nobody can be told.
        drop(self.store.set(&format!("ended/{}", self.rank), reason));
    }

    /// The result of something that all processes do together; where it failed, who is missing.
    fn explained<T>(&self, result: Result<T, ModelError>) -> Result<T, ModelError> {
        result.map_err(|error| {
            let message = torch_message(&error);
            self.error(match self.missing_peers() {
                Some(found) => format!("{found} ({message})"),
                None => format!("another process is lost, and with it the store: {message}"),
            })
        })
    }

    /// Who is missing, as far as the store knows: everybody else who fails says so, too.
    fn missing_peers(&self) -> Option<String> {
        self.store.set(&format!("failed/{}", self.rank), "").ok()?;
        // Whoever waits for this process fails now as well, and says so.
        for group in self.device.iter().chain([&self.control]) {
            #[expect(unsafe_code, reason = "the group lives as long as this")]
            drop(check(unsafe { shim::restok_group_abort(group.as_ptr()) }));
        }
        let started = Instant::now();
        loop {
            let mut silent = Vec::new();
            for other in (0..self.world_size).filter(|&other| other != self.rank) {
                // Who failed because of another one ends as well.
                if self.store.has(&format!("failed/{other}")).ok()? {
                    continue;
                }
                if let Some(reason) = self.store.get(&format!("ended/{other}")).ok()? {
                    return Some(format!("rank {other} has ended: {reason}"));
                }
                silent.push(other);
            }
            if silent.is_empty() {
                return Some("all processes failed at once".to_owned());
            }
            if started.elapsed() > PEER_REPORTS {
                let seconds = PEER_REPORTS.as_secs();
                let verbs = if silent.len() == 1 { "is lost, or did" } else { "are lost, or did" };
                return Some(format!("{} {verbs} not answer within {seconds} s", ranks(&silent)));
            }
            std::thread::sleep(POLL);
        }
    }
}

/// One start of a process.
///
/// A store may outlive the processes, and each may be started again on its own: what is read may be from one that is gone. So rank 0 opens a round
/// for those whom it sees; whoever finds itself in it confirms; and when all have, the round is complete, and the keys of the group begin with
/// its name. Where somebody new has appeared meanwhile, rank 0 opens another round.
#[derive(Debug)]
struct Arrival {
    rank: usize,
    world_size: usize,
    kind: &'static str,
    /// Begins with the kind of device, and is told apart from every other start.
    nonce: String,
}

impl Arrival {
    fn new(rank: usize, world_size: usize, device: Device) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let kind = if device == Device::Cpu { "cpu" } else { "cuda" };
        Self { rank, world_size, kind, nonce: format!("{kind}-{rank}-{}-{since}", std::process::id()) }
    }

    /// The beginning of the keys of the group that this start belongs to.
    fn meet(&self, store: &Store, timeout: Duration) -> Result<String, ModelError> {
        store.set(&format!("here/{}", self.rank), &self.nonce)?;
        let here =
            || (0..self.world_size).map(|other| store.get(&format!("here/{other}"))).collect::<Result<Vec<_>, _>>();
        let (started, mut seen, mut rounds) = (Instant::now(), Vec::new(), 0);
        loop {
            // Of many processes only one may ask for all the others over and over.
            if self.rank == 0
                && let Some(nonces) = here()?.into_iter().collect::<Option<Vec<_>>>()
                && nonces != seen
            {
                rounds += 1;
                store.set("round", &format!("{}-{rounds} {}", self.nonce, nonces.join(" ")))?;
                seen = nonces;
            }
            if let Some(round) = store.get("round")?
                && let Some((name, nonces)) = round.split_once(' ')
                && nonces.split(' ').nth(self.rank) == Some(&self.nonce)
                && self.confirm(store, name, nonces)?
            {
                return Ok(format!("{}{name}/", store.prefix));
            }
            if started.elapsed() >= timeout {
                let (rank, world_size, seconds) = (self.rank, self.world_size, timeout.as_secs_f64());
                let missing = |here: Vec<Option<String>>| -> Vec<usize> {
                    here.iter().enumerate().filter(|(_, nonce)| nonce.is_none()).map(|(other, _)| other).collect()
                };
                let problem = match here().map(missing) {
                    Ok(missing) if missing.is_empty() => {
                        format!("not all other processes confirmed within {seconds} s that they are there")
                    }
                    Ok(missing) => format!("{} did not appear within {seconds} s", ranks(&missing)),
                    // It ends with rank 0, whose time is up as well.
                    Err(_) => format!(
                        "not all appeared within {seconds} s, and the store is gone: rank 0 says who is missing"
                    ),
                };
                return Err(ModelError::ProcessGroup { rank, world_size, problem });
            }
            std::thread::sleep(POLL);
        }
    }

    /// Confirms the round `name` of these `nonces`; whether it is complete.
    fn confirm(&self, store: &Store, name: &str, nonces: &str) -> Result<bool, ModelError> {
        store.set(&format!("{name}/confirmed/{}", self.rank), "")?;
        let complete = format!("{name}/complete");
        if self.rank == 0 {
            // It alone decides, because it may have seen somebody new.
            for other in 0..self.world_size {
                if !store.has(&format!("{name}/confirmed/{other}"))? {
                    return Ok(false);
                }
            }
            store.set(&complete, "")?;
        }
        if !store.has(&complete)? {
            return Ok(false);
        }
        // All of them live, so none of these is of an earlier start.
        let kinds = nonces.split(' ').filter_map(|nonce| nonce.split_once('-')).map(|(kind, _)| kind);
        match kinds.enumerate().find(|(_, kind)| *kind != self.kind) {
            Some((other, kind)) => Err(ModelError::Device {
                asked: format!("{} (rank {})", self.kind, self.rank),
                problem: format!("rank {other} trains on {kind}"),
                advice: "All processes must train on the same kind of device.".to_owned(),
            }),
            None => Ok(true),
        }
    }
}

fn set_current_device(cuda_device: c_int) -> Result<(), ModelError> {
    #[expect(unsafe_code, reason = "takes no pointer")]
    check(unsafe { shim::restok_set_current_device(cuda_device) })
}

fn ranks(of: &[usize]) -> String {
    let numbers: Vec<String> = of.iter().map(ToString::to_string).collect();
    format!("{} {}", if of.len() == 1 { "rank" } else { "ranks" }, numbers.join(", "))
}

/// Whether an error came from an exchange with other processes; torch has one type for all of its errors.
fn is_of_another_process(error: &ModelError) -> bool {
    let text = error.to_string();
    ["gloo", "NCCL", "Connection", "connection", "Timed out", "Broken pipe", "Socket"]
        .iter()
        .any(|word| text.contains(word))
}

/// What libtorch said, on one line, without where in its sources and without advice to its developers.
fn torch_message(error: &ModelError) -> String {
    let text = error.to_string();
    let text = text.lines().next().unwrap_or_default().trim_start_matches("libtorch: ");
    let text = text.strip_prefix('[').and_then(|text| text.split_once("] ")).map_or(text, |(_, text)| text);
    text.split(". This is typically").next().unwrap_or_default().to_owned()
}

/// What to do where Gloo told others a loopback address, to which a machine's own name resolves on Debian.
fn advice_for(host: &str, problem: &str) -> &'static str {
    let is_here = host.starts_with("127.") || ["localhost", "::1"].contains(&host);
    match ["[127.", "[::1]"].iter().any(|address| problem.contains(address)) && !is_here {
        true => {
            "; a host name resolves to 127.…, which other machines cannot reach: name the network interface in GLOO_SOCKET_IFNAME"
        }
        false => "",
    }
}

/// Averages gradients over all processes, those that backward has finished while it computes others (torch's reducer of
/// `DistributedDataParallel`).
#[derive(Debug)]
pub(crate) struct Reducer {
    // Dropped before the group that it uses.
    reducer: Owned,
    group: Arc<ProcessGroup>,
}

impl Reducer {
    /// Of parameters that are the same on all processes, in the order in which the network uses them: backward comes to the last ones first.
    ///
    /// # Errors
    /// When shapes differ between processes, or one is lost.
    pub(crate) fn new(group: &Arc<ProcessGroup>, parameters: &[Tensor]) -> Result<Self, ModelError> {
        let Some(first) = parameters.first() else { return Err(ModelError::torch("no parameters to reduce")) };
        let pointers: Vec<_> = parameters.iter().map(|tensor| tensor.as_ptr().cast_mut()).collect();
        let mut reducer = std::ptr::null_mut();
        #[expect(unsafe_code, reason = "the parameters outlive the call, and torch keeps its own references to them")]
        group.explained(check(unsafe {
            shim::restok_reducer_open(group.of(first).as_ptr(), pointers.as_ptr(), pointers.len(), &mut reducer)
        }))?;
        Ok(Self { reducer: Owned::new(reducer, shim::restok_reducer_free)?, group: Arc::clone(group) })
    }

    /// The processes that it averages over.
    pub(crate) fn group(&self) -> &Arc<ProcessGroup> {
        &self.group
    }

    /// Runs `backward` from `loss`, after which the gradients of all processes are averaged, those that were added before among them.
    ///
    /// # Errors
    /// When a process is lost or silent, or libtorch refuses.
    pub(crate) fn backward(&self, loss: &Tensor) -> Result<(), ModelError> {
        #[expect(unsafe_code, reason = "the loss outlives the call")]
        check(unsafe { shim::restok_reducer_prepare(self.reducer.as_ptr(), loss.as_ptr().cast_mut()) })?;
        let computed = loss.f_backward().map_err(ModelError::from);
        match &computed {
            // Memory, for example: that is told as it is, and nobody else is at fault.
            Err(error) if !is_of_another_process(error) => computed,
            _ => self.group.explained(computed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_no_other_machine_can_reach_is_told_with_what_to_do() {
        let problem = "timed out connecting: SO_ERROR: Connection refused, remote=[127.0.0.1]:58257$0";
        assert!(advice_for("10.0.0.1", problem).contains("GLOO_SOCKET_IFNAME"));
        assert_eq!(advice_for("localhost", problem), "");
        assert_eq!(advice_for("10.0.0.1", "remote=[10.0.0.2]:58257"), "");
    }
}
