"""Networks: `forward(x, timesteps, conditioning)` or images in, images out. No schedules, losses, files."""
