"""Linear maps from images to measurements, and the corruptions that draw them."""

KINDS = {"corruption": ".corruption:AbstractCorruption"}
CHOICES = {
    "corruption": {
        name: f".corruption:{name}"
        for name in (
            *("GaussianNoise", "BoxHole", "RandomHoles", "GivenMask", "GaussianBlur", "MotionBlur", "GivenKernel"),
            *("Downsampling", "CompressedSensing"),
        )
    }
}
