"""Key services that unwrap an envelope's data key."""
