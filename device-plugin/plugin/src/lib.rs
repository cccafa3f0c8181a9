//! The device plugin of Coracle: GPUs of NVIDIA, AMD and Intel, and any device by configuration, for any kubelet.
