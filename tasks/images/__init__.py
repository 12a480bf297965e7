"""Images: files, families, batches, patches, and how good a picture is."""

KINDS = {"family": ".sources:AbstractFamily", "gallery": ".galleries:AbstractGallery"}
CHOICES = {
    "family": {
        "faces": ".sources:Faces",
        "celeba": ".sources:CelebA",
        "mnist": ".sources:Mnist",
        "cifar10": ".sources:Cifar10",
        "cifar10-full": ".sources:Cifar10Full",
        "usps": ".usps:Usps",
        "patches": ".families:Patches",
    },
    "gallery": {
        "photos": ".galleries:Photographs",
        "train400": ".galleries:Train400",
        "celeba": ".galleries:CelebAPictures",
        "cifar10": ".galleries:Cifar10Pictures",
    },
}
