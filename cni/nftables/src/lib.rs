//! Masquerading and port maps in an nftables table of our own, by netlink.
