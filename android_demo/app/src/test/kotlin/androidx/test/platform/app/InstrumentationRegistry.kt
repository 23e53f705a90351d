/* Robolectric tells this class of androidx.test, which is on Google's Maven only, what it started. Nobody asks for it here. */
package androidx.test.platform.app

import android.app.Instrumentation
import android.os.Bundle

object InstrumentationRegistry {
    @JvmStatic
    @Suppress("UNUSED_PARAMETER")
    fun registerInstance(instrumentation: Instrumentation?, arguments: Bundle?) = Unit
}
