"""The floor: types and file formats that everything else stands on."""
