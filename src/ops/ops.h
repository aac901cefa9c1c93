// All operators.
#pragma once

#include "ops/attention/attention.h"
#include "ops/batch_norm/batch_norm.h"
#include "ops/bi_wkv/bi_wkv.h"
#include "ops/conv2d/conv2d.h"
#include "ops/depthwise_conv/depthwise_conv.h"
#include "ops/elementwise/elementwise.h"
#include "ops/interpolate/interpolate.h"
#include "ops/involution/involution.h"
#include "ops/layer_norm/layer_norm.h"
#include "ops/layout/layout.h"
#include "ops/linear/linear.h"
#include "ops/mean/mean.h"
#include "ops/patch_embed/patch_embed.h"
#include "ops/q_shift/q_shift.h"
