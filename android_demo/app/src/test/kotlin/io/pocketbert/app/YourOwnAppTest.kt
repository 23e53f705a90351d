/* The ten lines that the README gives an app of one's own, as they stand there, with the real LiteRT. */
package io.pocketbert.app

import android.content.Context
import android.os.Build
import io.pocketbert.core.BundleStore
import io.pocketbert.core.Prediction
import io.pocketbert.core.SelfChecks
import io.pocketbert.litert.LiteRtEngine
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.runInterruptible
import org.junit.Assume.assumeTrue
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.RuntimeEnvironment
import org.robolectric.annotation.Config
import java.io.File
import kotlin.test.assertEquals

class Labels(private val context: Context, private val bundle: String) {
    private val classifier by lazy {
        val source = { path: String -> context.assets.open("$bundle/$path") }
        val installed = BundleStore(File(context.filesDir, bundle)).install(source, "tflite")
        val engine = LiteRtEngine.kind(threads = 2, cacheFolder = context.cacheDir)
        SelfChecks(File(context.filesDir, "checks"), Build.FINGERPRINT).open(installed, engine)
    }

    suspend fun of(text: String): Prediction? = runInterruptible(Dispatchers.Default) { classifier.classifyNewest(text)?.first() }
}

@RunWith(PhoneRunner::class)
@Config(sdk = [35], application = TestApplication::class)
class YourOwnAppTest {
    @Test
    fun tenLinesLabelAText() {
        val (natives, bundles) = System.getProperty("pocketbert.natives")!! to System.getProperty("pocketbert.bundles")!!
        assumeTrue("no libLiteRt.so in $natives: run tests/android_natives.py", File(natives, "libLiteRt.so").exists())
        assumeTrue("no demo bundles in $bundles: run make demo", File(bundles, "distilbert").exists())
        assertEquals("POSITIVE", runBlocking { Labels(RuntimeEnvironment.getApplication(), "distilbert").of("what a lovely film")?.label })
    }
}
