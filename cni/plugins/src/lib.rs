//! CNI plugins: a library whose code runs in the agent, and one program that any runtime can execute.
