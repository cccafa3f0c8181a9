//! The Container Device Interface (CDI 0.3 to 1.1): specifications read, validated, resolved to
//! [`ContainerEdits`](coracle_model::ContainerEdits), and written.
//!
//! ```text
//! file -> read (tree with places) -> validate -> Spec;   Registry: names -> Specs of several directories -> edits
//! ```
//!
//! A specification is a vendor's file, so it is checked as any foreign bytes are: what is wrong is said with file, line,
//! column and field, and concerns nobody who asks for a device of another file.

mod annotations;
mod error;
mod name;
mod read;
mod registry;
mod resolve;
mod spec;
mod validate;
mod version;
mod write;

pub use annotations::{ANNOTATION_PREFIX, devices_of_annotations};
pub use error::CdiError;
pub use name::QualifiedName;
pub use read::{MOST_BYTES, parse};
pub use registry::{DEFAULT_DIRECTORIES, Registry};
pub use spec::{Device, DeviceNode, Edits, Hook, IntelRdt, Mount, NetDevice, Spec};
pub use version::{Version, needed_version};
pub use write::{remove, write};
