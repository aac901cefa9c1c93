// WEFT_API marks what a shared libweft exports; everything else is hidden.
#pragma once

#if defined(WEFT_BUILDING_LIBRARY)
#define WEFT_API __attribute__((visibility("default")))
#else
#define WEFT_API
#endif
