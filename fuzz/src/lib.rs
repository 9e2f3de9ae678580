//! What the fuzz targets do with an input. The same files are compiled into the broker's own tests
//! (`tests/fuzz`), which run each target for a moment on inputs that are always the same.

// For the files of the broker that `targets::rows` compiles once more.
use causeway::{codec, record};

pub mod targets;
