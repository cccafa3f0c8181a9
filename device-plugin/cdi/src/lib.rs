//! The Container Device Interface (CDI 0.5 to 1.1): specifications read, validated, resolved to
//! [`ContainerEdits`](coracle_model::ContainerEdits), and written.
