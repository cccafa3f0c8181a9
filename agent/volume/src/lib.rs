//! hostPath and emptyDir volumes, and subPath, as mounts held by descriptor.
