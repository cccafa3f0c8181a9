//! The gRPC APIs between a node, its device plugins and its monitoring: `deviceplugin v1beta1`, `pluginregistration v1` and
//! `podresources v1`, and how they are spoken over unix sockets.
