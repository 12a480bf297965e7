"""Common corruptions beside the norm balls: what noise, blur, weather and compression leave of a classifier."""
